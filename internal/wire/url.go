package wire

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// ipv6Zone finds the zone of an IPv6 address, which must be escaped (RFC 6874).
var ipv6Zone = regexp.MustCompile(`\[([^]%]+)%([^]]*)\]`)

// parseURL reads the address of a receiver. Its error says how to write it.
func parseURL(text string) (*url.URL, error) {
	invalid := func(why string) error {
		return fmt.Errorf("%+q is no address of a receiver: %s", text, why)
	}
	if m := ipv6Zone.FindStringSubmatch(text); m != nil && !strings.HasPrefix(m[2], "25") {
		return nil, invalid(fmt.Sprintf("write the zone as %+q", ipv6Zone.ReplaceAllString(text, "[$1%25$2]")))
	}
	if !strings.Contains(text, "://") {
		return nil, invalid(fmt.Sprintf("write %+q", "https://"+text))
	}
	base, err := url.Parse(text)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return nil, invalid(fmt.Sprintf("%v: write https://NAME:PORT", err))
	}
	switch {
	case base.Scheme != "https", base.Path != "" && base.Path != "/", base.RawQuery != "", base.User != nil:
		return nil, invalid("write https://NAME:PORT")
	case base.Hostname() == "":
		return nil, invalid("it names no host: write https://NAME:PORT")
	}
	if port := base.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, invalid("a port is between 1 and 65535")
		}
	}
	return base, nil
}
