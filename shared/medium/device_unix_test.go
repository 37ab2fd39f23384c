//go:build !windows && !linux

package medium

import "errors"

func mknodZero(path string) error { return errors.ErrUnsupported }
