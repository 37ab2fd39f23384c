package pgtest

import "syscall"

func serverAccount() (*syscall.SysProcAttr, error) { return nil, ErrAbsent }

func give(string, *syscall.SysProcAttr) error { return ErrAbsent }
