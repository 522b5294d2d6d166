package archive

import "testing"

// TestLargeEpisodesShareNoEncoder: of two with one, the second may be unreadable.
func TestLargeEpisodesShareNoEncoder(t *testing.T) {
	p := NewPacker()
	large, small := Survey{Bytes: largeFrom}, Survey{Bytes: largeFrom - 1}
	if first, second := p.encoder(large), p.encoder(large); first == second || first == p.encoder(small) {
		t.Error("an encoder is used again for a large episode")
	}
	if first, second := p.encoder(small), p.encoder(small); first != second {
		t.Error("each small episode has an encoder of its own")
	}
}
