package config

import (
	"strings"
)

// Text writes the configuration out in canonical form: every key that has a value, defaults too, so that it means
// the same to a program whose defaults have changed. [Parse] of it gives the same configuration, if that is valid.
func (c *Config) Text() string {
	var b strings.Builder
	for _, k := range keys {
		for _, a := range k.get(c) {
			b.WriteString(k.with(a.arg) + " = " + quote(a.value) + "\n")
		}
	}
	return b.String()
}

// quote writes s so that both a line's value and a word in one read as s again.
func quote(s string) string {
	switch {
	case s != "" && only(s, "_./:,=+@%-"):
		return s
	case !strings.Contains(s, "'"):
		return "'" + s + "'"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// quoted reads the quoted text that s begins with and returns it with the number of bytes it took. Nothing is
// special between single quotes; between double quotes a backslash keeps a double quote or a backslash.
func quoted(s string) (text string, n int, ok bool) {
	var b strings.Builder
	end := s[0]
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == end:
			return b.String(), i + 1, true
		case end == '"' && s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", 0, false
}

// splitWords splits s at white space as a shell does, with its quotes and backslash and nothing else of it.
func splitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	inside := false
	for i := 0; i < len(s); i++ {
		switch b := s[i]; b {
		case ' ', '\t':
			if inside {
				words = append(words, word.String())
				word.Reset()
			}
			inside = false
			continue
		case '\'', '"':
			text, n, ok := quoted(s[i:])
			if !ok {
				return nil, fault("no closing %c in %s", b, shown(s))
			}
			word.WriteString(text)
			i += n - 1
		case '\\':
			if i++; i == len(s) {
				return nil, fault("%s ends in a backslash", shown(s))
			}
			word.WriteByte(s[i])
		default:
			word.WriteByte(b)
		}
		inside = true
	}
	if inside {
		words = append(words, word.String())
	}
	return words, nil
}

func joinWords(words []string) string {
	quotedWords := make([]string, len(words))
	for i, w := range words {
		quotedWords[i] = quote(w)
	}
	return strings.Join(quotedWords, " ")
}
