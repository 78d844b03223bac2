package object

import (
	"cmp"
	"maps"
	"slices"
)

// SortedIDs gives the ids of records, ascending.
func SortedIDs[V any](m map[uint64]V) []uint64 {
	return slices.SortedFunc(maps.Keys(m), cmp.Compare[uint64])
}

// Sorted gives the values of a map by ascending key, so that two dumps of the same thing are the same.
func Sorted[K cmp.Ordered, V any](m map[K]V) []V {
	values := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[k])
	}
	return values
}

// Search is a binary search whose comparison may fail; it returns -place-1 if nothing compares as 0.
func Search(n int, compare func(int) (int, error)) (int, error) {
	low, high := 0, n
	for low < high {
		mid := (low + high) / 2
		order, err := compare(mid)
		switch {
		case err != nil:
			return 0, err
		case order == 0:
			return mid, nil
		case order < 0:
			low = mid + 1
		default:
			high = mid
		}
	}
	return -low - 1, nil
}
