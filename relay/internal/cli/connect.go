package cli

import (
	"context"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// azureFlags say which cloud, and with whose credential.
func azureFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "cloud", Usage: "one of `" + strings.Join(azure.CloudNames(), "|") + "`", EnvVars: []string{"AZS_CLOUD"}},
		&cli.StringFlag{Name: "arm-endpoint", Usage: "Resource Manager `URL` of a custom cloud; the rest comes from its metadata", EnvVars: []string{"AZS_ARM_ENDPOINT"}},
		&cli.StringFlag{Name: "cloud-manifest", Usage: "cloud manifest `FILE` that names the endpoint of a custom cloud, instead of --arm-endpoint", EnvVars: []string{"AZS_CLOUD_MANIFEST"}},
		&cli.StringFlag{Name: "ca-file", Usage: "PEM `FILE` of roots to trust besides the machine's", EnvVars: []string{"AZS_CA_FILE"}},
		&cli.StringFlag{Name: "auth", Usage: "credential: `" + strings.Join(azure.AuthNames(), "|") + "`", Value: "default", EnvVars: []string{"AZS_AUTH"}},
		&cli.StringFlag{Name: "tenant", Usage: "`TENANT` to sign in to", EnvVars: []string{"AZS_TENANT"}},
		&cli.StringFlag{Name: "client-id", Usage: "application `ID` that signs in", EnvVars: []string{"AZS_CLIENT_ID"}},
		&cli.StringFlag{Name: "client-secret-file", Usage: "`FILE` that holds the client secret; or the secret itself in the variable AZS_CLIENT_SECRET", EnvVars: []string{"AZS_CLIENT_SECRET_FILE"}},
		&cli.StringFlag{Name: "client-certificate-file", Usage: "PEM or PKCS #12 `FILE` of the client certificate and its key", EnvVars: []string{"AZS_CLIENT_CERTIFICATE_FILE"}},
		&cli.StringFlag{Name: "client-certificate-password-file", Usage: "`FILE` that holds the password of the PKCS #12 file", EnvVars: []string{"AZS_CLIENT_CERTIFICATE_PASSWORD_FILE"}},
		&cli.BoolFlag{Name: "token-cache", Usage: "keep the sign-in for the next run, encrypted by the system; see login and logout", EnvVars: []string{"AZS_TOKEN_CACHE"}},
		&cli.StringFlag{Name: "api-version", Usage: "`VERSION` of the registration calls (default: " + azure.RegistrationsVersion + ", and " + azure.NewestRegistrationsVersion + " when Azure no longer takes that)", EnvVars: []string{"AZS_API_VERSION"}},
	}
}

// connect signs in and says as whom.
func connect(ctx context.Context, e *appkit.Env, c *cli.Context) (*azure.Client, error) {
	o := azure.Options{
		Cloud: c.String("cloud"), ARMEndpoint: c.String("arm-endpoint"), Manifest: c.String("cloud-manifest"), TokenCache: c.Bool("token-cache"), CAFile: c.String("ca-file"),
		Auth: c.String("auth"), Tenant: c.String("tenant"), ClientID: c.String("client-id"),
		ClientCertificateFile: c.String("client-certificate-file"), APIVersion: c.String("api-version"), Clock: e.Clock,
		Progress: func(message string) { e.Console.Say("  … %s", message) },
	}
	var err error
	if o.Limit, err = limits(); err != nil {
		return nil, err
	}
	if o.ClientSecret, err = clientSecret(e, c.String("client-secret-file")); err != nil {
		return nil, err
	}
	if file := c.String("client-certificate-password-file"); file != "" {
		if o.ClientCertificatePassword, err = e.LoadSecretFile(file); err != nil {
			return nil, err
		}
	}
	if o.Auth == "device-code" {
		o.DeviceCode = func(message string) { e.Console.Warn("%s", message) }
	}
	client, err := azure.Connect(ctx, o)
	if err != nil {
		return nil, err
	}
	who, err := client.WhoAmI(ctx)
	if err != nil {
		return nil, err
	}
	e.Console.Say("signed in to %s as %s, object %s, tenant %s", client.Cloud().Name, nameOf(who), who.ObjectID, who.Tenant)
	return client, nil
}

// limits are the rates that Resource Manager documents. A simulated Azure may let its
// clock run faster: AZS_REHEARSE_SPEED=60 keeps up with azuretest --speed 60.
func limits() (*azure.Limits, error) {
	l := azure.AzureLimits()
	if v := os.Getenv("AZS_REHEARSE_SPEED"); v != "" {
		speed, err := strconv.ParseFloat(v, 64)
		if err != nil || !(speed >= 1 && speed <= 1000) {
			return nil, fault.New(fault.Usage, "AZS_REHEARSE_SPEED is %q, not a number from 1 to 1000", v)
		}
		l = l.Times(speed)
	}
	return &l, nil
}

// clientSecret reads the client secret from its file or from the environment,
// never from the command line.
func clientSecret(e *appkit.Env, file string) (secret.Text, error) {
	env := os.Getenv("AZS_CLIENT_SECRET")
	switch {
	case file != "" && env != "":
		return secret.Text{}, fault.New(fault.Usage, "the client secret is given twice: by --client-secret-file and by AZS_CLIENT_SECRET")
	case file != "":
		return e.LoadSecretFile(file)
	}
	return secret.New(env), nil
}
