package suggestion_test

import (
	"strings"
	"testing"

	"cis490/internal/suggestion"
)

func TestOnlyNearNamesAreSuggested(t *testing.T) {
	known := []string{"lab-01", "lab-02", "lab-03", "lab-10", "run-7", "run-8", "older-than", "rate", "rate", "z", "experiment-2026-11-30", "a-host-1", "b-host-1"}
	for word, want := range map[string]string{
		"lab-O1":                 "did you mean lab-01?",
		"LAB-10":                 "did you mean lab-10?",
		"lab-0":                  "did you mean lab-01, lab-02 or lab-03?", // three at most
		"run-77":                 "did you mean run-7?",
		"run-9":                  "did you mean run-7 or run-8?",
		"rates":                  "did you mean rate?",
		"oldre-than":             "did you mean older-than?",
		"experiment-2026-1130":   "did you mean experiment-2026-11-30?",
		"b-host-2":               "did you mean b-host-1 or a-host-1?", // the nearest first
		"rate":                   "",                                   // it is itself
		"lab-99":                 "",                                   // two digits of it are another host
		"x":                      "",
		"":                       "",
		strings.Repeat("a", 1e6): "",
	} {
		if got := suggestion.Question(word, known); got != want {
			t.Errorf("%.40s: got %q, want %q", word, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	long := strings.Repeat("a", 200) // is not compared: the time for it is bounded
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"abc", "abd", 1}, {"abc", "acb", 2}, {"abcd", "bcd", 1}, {long, long + "b", len(long) + 1}} {
		if got := suggestion.Distance(c.a, c.b); got != c.want {
			t.Errorf("%q, %q: got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func FuzzQuestion(f *testing.F) {
	f.Add("lab-O1", "lab-01")
	f.Fuzz(func(t *testing.T, word, known string) {
		if got := suggestion.Question(word, []string{known, known}); strings.Count(got, "did you mean") > 1 || strings.Contains(got, " or ") && !strings.Contains(known, " or ") {
			t.Errorf("got %q", got)
		}
	})
}
