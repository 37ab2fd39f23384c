//go:build !faultinject

package atomicfile

// Boundary marks a moment between two changes of the disk. It does nothing;
// built with the tag faultinject it can kill the process.
func Boundary(name string) {}

// pieces returns data in the portions in which it is written: one.
func pieces(data []byte) [][]byte { return [][]byte{data} }

// attempt comes before every change of the disk. It allows it; built with the tag
// faultinject the disk can be full, read-only or gone from one attempt on.
func attempt(change) error { return nil }
