#include "textflag.h"

// spinPause is the processor's PAUSE: some nanoseconds of waiting that leave the core to its sibling.
TEXT ·spinPause(SB), NOSPLIT, $0
	PAUSE
	RET
