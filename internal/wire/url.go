package wire

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// zone finds the zone of an IPv6 address, which must be escaped (RFC 6874).
var zone = regexp.MustCompile(`\[([^]%]+)%([^]]*)\]`)

// parseURL reads the address of a receiver. Its error says how to write it.
func parseURL(text string) (*url.URL, error) {
	wrong := func(why string) error {
		return fmt.Errorf("%+q is no address of a receiver: %s", text, why)
	}
	if m := zone.FindStringSubmatch(text); m != nil && !strings.HasPrefix(m[2], "25") {
		return nil, wrong(fmt.Sprintf("write the zone as %+q", zone.ReplaceAllString(text, "[$1%25$2]")))
	}
	if !strings.Contains(text, "://") {
		return nil, wrong(fmt.Sprintf("write %+q", "https://"+text))
	}
	base, err := url.Parse(text)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return nil, wrong(fmt.Sprintf("%v: write https://NAME:PORT", err))
	}
	switch {
	case base.Scheme != "https", base.Path != "" && base.Path != "/", base.RawQuery != "", base.User != nil:
		return nil, wrong("write https://NAME:PORT")
	case base.Hostname() == "":
		return nil, wrong("it names no host: write https://NAME:PORT")
	}
	if port := base.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, wrong("a port is between 1 and 65535")
		}
	}
	return base, nil
}
