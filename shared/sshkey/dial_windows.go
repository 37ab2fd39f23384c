package sshkey

import (
	"io"
	"os"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// pipe is where the ssh-agent service of Windows listens.
const pipe = `\\.\pipe\openssh-ssh-agent`

// dial opens the pipe that SSH_AUTH_SOCK names, or that of the service.
func dial() (io.ReadWriteCloser, error) {
	name := os.Getenv("SSH_AUTH_SOCK")
	if name == "" {
		name = pipe
	}
	conn, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, fault.New(fault.Locked, "no ssh-agent listens at %s: %w", name, err).Hint("Start-Service ssh-agent; ssh-add KEYFILE")
	}
	return conn, nil
}
