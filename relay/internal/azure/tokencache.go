//go:build linux || windows || (darwin && cgo)

package azure

import (
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity/cache"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// openTokenCache opens our token cache, which azidentity keeps encrypted: on
// Linux by a key in the kernel's keyring, which the next start of the machine
// loses, and on Windows by DPAPI.
func openTokenCache() (azidentity.Cache, error) {
	c, err := cache.New(&cache.Options{Name: tokenCacheName})
	if err != nil {
		return c, fault.New(fault.Medium, "the token cache cannot be used on this machine: %w", err).
			Hint("run the command again without --token-cache")
	}
	return c, nil
}
