package dump

import "vps/dump/page"

// Range is part of an address space, or of an object's content: see [page.Range].
type Range = page.Range

// Extent is a range with the place where its pages are stored: see [page.Extent].
type Extent = page.Extent

// Zero is the Frame of an extent that is all zeros.
const Zero = page.Zero
