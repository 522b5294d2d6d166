package archive

import "testing"

// TestLargeEpisodesShareNoEncoder: if two shared one, the second could be unreadable.
func TestLargeEpisodesShareNoEncoder(t *testing.T) {
	p := NewPacker()
	large, small := Survey{Bytes: minLargeSize}, Survey{Bytes: minLargeSize - 1}
	if first, second := p.encoderFor(large), p.encoderFor(large); first == second || first == p.encoderFor(small) {
		t.Error("an encoder is used again for a large episode")
	}
	if first, second := p.encoderFor(small), p.encoderFor(small); first != second {
		t.Error("each small episode has an encoder of its own")
	}
}
