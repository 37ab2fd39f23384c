package atomicfile

import "golang.org/x/sys/windows"

// renameNoReplace renames from to to unless to exists: MoveFileEx without
// MOVEFILE_REPLACE_EXISTING.
func renameNoReplace(from, to string) error {
	f, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	t, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	return windows.MoveFileEx(f, t, windows.MOVEFILE_WRITE_THROUGH)
}
