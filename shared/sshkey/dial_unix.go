//go:build !windows

package sshkey

import (
	"io"
	"net"
	"os"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// dial connects to the socket that SSH_AUTH_SOCK names.
func dial() (io.ReadWriteCloser, error) {
	socket := os.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, fault.New(fault.Locked, "no ssh-agent: SSH_AUTH_SOCK is not set, and the signing key is in one").Hint(`eval "$(ssh-agent)" && ssh-add KEYFILE`)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, fault.New(fault.Locked, "no ssh-agent listens at SSH_AUTH_SOCK: %w", err).Hint(`eval "$(ssh-agent)" && ssh-add KEYFILE`)
	}
	return conn, nil
}
