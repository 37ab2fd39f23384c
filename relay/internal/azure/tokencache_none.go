//go:build !(linux || windows || (darwin && cgo))

package azure

import (
	"runtime"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// openTokenCache has nothing to open: on macOS the cache is in the keychain,
// which needs cgo, and the product is built without.
func openTokenCache() (azidentity.Cache, error) {
	return azidentity.Cache{}, fault.New(fault.Usage, "this build of azs-relay for %s has no token cache", runtime.GOOS).
		Hint("run the command again without --token-cache")
}
