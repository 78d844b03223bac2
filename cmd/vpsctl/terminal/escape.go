package terminal

// escape finds the sequence that ends a session at a terminal, in what is typed: Enter, #, full stop.
// Enter # # is Enter # for the instance.
type escape struct {
	state escapeState
}

type escapeState int

const (
	lineStart escapeState = iota // so that the sequence works at the very beginning, too
	inLine
	afterMark
)

const escapeMark = '#'

// filter returns what of p is for the instance, and whether the sequence was found. A mark at the start of a line waits
// for what follows it.
func (e *escape) filter(p []byte) (out []byte, found bool) {
	for _, b := range p {
		if e.state == afterMark {
			e.state = inLine
			switch b {
			case '.':
				return out, true
			case escapeMark: // stands for itself
				out = append(out, b)
				continue
			}
			out = append(out, escapeMark)
		}
		switch {
		case b == escapeMark && e.state == lineStart:
			e.state = afterMark
			continue
		case b == '\r' || b == '\n':
			e.state = lineStart
		default:
			e.state = inLine
		}
		out = append(out, b)
	}
	return out, false
}
