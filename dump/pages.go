package dump

import "vps/dump/page"

// Range is part of an address space, or of an object's content: see [page.Range].
type Range = page.Range

// Extent is a range with the place where its pages are stored: see [page.Extent].
type Extent = page.Extent

// What the Frame of an extent is that is stored nowhere.
const (
	Zero = page.Zero // it is all zeros
	None = page.None // it is withdrawn; only a [PageFrame] has such extents
)
