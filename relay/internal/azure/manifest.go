package azure

import (
	"encoding/json"
	"os"
	"unicode/utf16"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// maxManifest is the longest cloud manifest file that is read, in bytes. Real
// ones hold certificates and endpoints.
const maxManifest = 4 << 20

// readManifest returns the Resource Manager endpoint of a cloud manifest file:
// the official Initialize-AzEnvironment reads
// DeploymentData.CustomEnvironmentEndpoints.CustomCloudARMEndpoint, and the
// resource provider answers the same under properties. Both shapes are read, in
// any letter case and in the encodings that PowerShell writes. The manifest's
// own signature cannot be checked: whom it may be signed by is not published.
func readManifest(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", fault.New(fault.Medium, "the cloud manifest cannot be read: %w", err)
	}
	if info.Size() > maxManifest {
		return "", fault.New(fault.Refused, "the cloud manifest %q has %d bytes, at most %d are read", file, info.Size(), maxManifest)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", fault.New(fault.Medium, "the cloud manifest cannot be read: %w", err)
	}
	type data struct {
		DeploymentData struct {
			CustomEnvironmentEndpoints struct {
				CustomCloudARMEndpoint string
			}
		}
	}
	var m struct {
		data
		Properties data
	}
	if err := json.Unmarshal(plainText(raw), &m); err != nil {
		return "", fault.New(fault.Refused, "the cloud manifest %q is not JSON: %w", file, err)
	}
	endpoint := first(m.DeploymentData.CustomEnvironmentEndpoints.CustomCloudARMEndpoint, m.Properties.DeploymentData.CustomEnvironmentEndpoints.CustomCloudARMEndpoint)
	if endpoint == "" {
		return "", fault.New(fault.Refused, "the cloud manifest %q names no DeploymentData.CustomEnvironmentEndpoints.CustomCloudARMEndpoint", file).
			Hint("azs-relay register BUNDLE --cloud custom --arm-endpoint https://management.REGION.FQDN")
	}
	return httpsURL("the endpoint of the cloud manifest", endpoint)
}

// plainText returns UTF-8 without a byte order mark of a text in UTF-8 or in
// UTF-16 with one.
func plainText(raw []byte) []byte {
	if len(raw) >= 3 && string(raw[:3]) == "\xef\xbb\xbf" {
		return raw[3:]
	}
	if len(raw) < 2 || string(raw[:2]) != "\xff\xfe" && string(raw[:2]) != "\xfe\xff" {
		return raw
	}
	low, high := 0, 1
	if raw[0] == 0xfe {
		low, high = 1, 0
	}
	var units []uint16
	for i := 2; i+1 < len(raw); i += 2 {
		units = append(units, uint16(raw[i+low])|uint16(raw[i+high])<<8)
	}
	return []byte(string(utf16.Decode(units)))
}
