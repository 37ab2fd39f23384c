package atomicfile

import "os"

// syncFolder does nothing: Windows cannot sync a folder.
func syncFolder(folder *os.File) error { return nil }
