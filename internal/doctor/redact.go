package doctor

import (
	"regexp"
	"strings"
)

const redacted = "[redacted]"

// isSecretKey reports whether the value of a key may be a secret. That of a *_file key is only a path.
func isSecretKey(key string) bool {
	key = strings.ToLower(strings.Trim(key, `"'`))
	return secretWord.MatchString(key) && !strings.HasSuffix(key, "_file") && !strings.HasSuffix(key, "_dir")
}

var (
	secretWord = regexp.MustCompile(`secret|token|passw|passphrase|credential|authori[sz]ation|api_?key|private_?key`)

	pemBlock = regexp.MustCompile(`-----BEGIN [^-\n]*-----[\s\S]*?(-----END [^-\n]*-----|\z)`)
	pemEnd   = regexp.MustCompile(`\A[\s\S]*?-----END [^-\n]*-----`) // of a block whose beginning was cut off

	userInfo  = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/\s"'<>]*@`)
	query     = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://[^\s"'?#<>]*)[?#][^\s"'<>]*`)
	bearer    = regexp.MustCompile(`(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{8,}`)
	joinToken = regexp.MustCompile(`cis490_join_[A-Za-z0-9_-]*`)

	// assignment is a key with its value, in TOML, JSON or a log: a string of several lines, a string,
	// a list, a table, or a word.
	assignment = regexp.MustCompile(`("?[\w.-]+"?)(\s*[=:]\s*)` +
		`("""[\s\S]*?(?:"""|\z)|'''[\s\S]*?(?:'''|\z)|` + quoted + `|` +
		`\[(?:` + quoted + `|[^\]"'])*\]?|\{(?:` + quoted + `|[^}"'])*\}?|[^\s"'\[{][^\s,}]*)`)

	tableHeader = regexp.MustCompile(`^\s*\[+([^\[\]"]+)\]+\s*(#.*)?$`)
)

// quoted is a string, whose end may have been cut off.
const quoted = `"(?:\\.|[^"\\\n])*"|'[^'\n]*'|"[^"\n]*|'[^'\n]*`

// maxNesting is how deep assignments within values are examined, so that hostile text does not take
// forever. Below that, a value that may contain a secret is removed as a whole.
const maxNesting = 4

// Redact removes from a text what may be a secret: PEM blocks, user names, passwords and queries in
// URLs, tokens, and the values of keys such as password. It keeps paths.
func Redact(text string) string {
	if end, begin := strings.Index(text, "-----END "), strings.Index(text, "-----BEGIN "); end >= 0 && (begin < 0 || end < begin) {
		text = pemEnd.ReplaceAllString(text, redacted)
	}
	text = pemBlock.ReplaceAllString(text, redacted)
	text = bearer.ReplaceAllString(text, "${1}${2}"+redacted)
	text = redactAssignments(redactTables(text), maxNesting)
	text = userInfo.ReplaceAllString(text, "${1}"+redacted+"@")
	text = query.ReplaceAllString(text, "${1}?"+redacted)
	return joinToken.ReplaceAllString(text, redacted)
}

// redactAssignments removes the values of keys that name secrets. A value may contain assignments, as a
// table does, or a log line that quotes another one.
func redactAssignments(text string, nesting int) string {
	return assignment.ReplaceAllStringFunc(text, func(match string) string {
		m := assignment.FindStringSubmatch(match)
		value := m[3]
		switch {
		case isSecretKey(m[1]):
			value = `"` + redacted + `"`
		case !strings.ContainsAny(value, "=:"):
		case nesting > 0:
			value = redactNested(value, nesting-1)
		case secretWord.MatchString(strings.ToLower(value)):
			value = redacted
		}
		return m[1] + m[2] + value
	})
}

// redactNested redacts a value without the quotes or brackets around it.
func redactNested(value string, nesting int) string {
	if len(value) < 2 || !strings.ContainsAny(value[:1], `"'{[`) {
		return redactAssignments(value, nesting)
	}
	end := len(value) - 1
	if closing := map[byte]byte{'[': ']', '{': '}', '"': '"', '\'': '\''}[value[0]]; value[end] != closing {
		end++ // it was cut off
	}
	return value[:1] + redactAssignments(value[1:end], nesting) + value[end:]
}

// redactTables removes the values of TOML tables whose names are those of secrets.
func redactTables(text string) string {
	if !strings.Contains(text, "[") {
		return text
	}
	lines := strings.SplitAfter(text, "\n")
	secret := false
	for i, line := range lines {
		if m := tableHeader.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
			secret = isSecretKey(m[1])
		} else if secret && strings.TrimSpace(line) != "" {
			lines[i] = "# " + redacted + "\n"
		}
	}
	return strings.Join(lines, "")
}

// redactValue is [Redact] for a decoded JSON value.
func redactValue(v any) any {
	switch v := v.(type) {
	case string:
		return Redact(v)
	case []any:
		for i := range v {
			v[i] = redactValue(v[i])
		}
	case map[string]any:
		for key, value := range v {
			if _, text := value.(string); text && isSecretKey(key) {
				v[key] = redacted
			} else {
				v[key] = redactValue(value)
			}
		}
	}
	return v
}
