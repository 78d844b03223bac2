package message

import "testing"

func TestCharactersThatAreNoBytes(t *testing.T) {
	for text, want := range map[string]string{"plain": "plain", byteMark + "a\u00ff": "a\xff"} {
		if got, err := loadText(text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if _, err := loadText(byteMark + "\u0100"); err == nil {
		t.Error("a character that is no byte was accepted")
	}
}
