package atomicfile

// SyncDir does nothing: Windows cannot sync a folder.
func SyncDir(dir string) error { return nil }
