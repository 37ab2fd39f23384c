package atomicfile

import "os"

// SyncFolder does nothing: Windows cannot sync a folder.
func SyncFolder(folder *os.File) error { return nil }
