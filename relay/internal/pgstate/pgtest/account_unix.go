//go:build unix

package pgtest

import (
	"errors"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// serverAccount is the account under which the server runs: our own, or another
// one when ours is root.
func serverAccount() (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return &syscall.SysProcAttr{Setpgid: true}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, errors.Join(uerr, gerr)
	}
	return nil, errors.New("the server does not run as root, and there is neither a user postgres nor nobody")
}

// give makes the folder the server's.
func give(dir string, account *syscall.SysProcAttr) error {
	if account.Credential == nil {
		return nil
	}
	return errors.Join(os.Chown(dir, int(account.Credential.Uid), int(account.Credential.Gid)), os.Chmod(dir, 0o755))
}
