package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/console"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// azureFaults are what every verb can meet that signs in.
var azureFaults = []fault.Kind{fault.Usage, fault.Refused, fault.NotForUs, fault.Medium, fault.Locked, fault.Permanent, fault.Unreachable}

func loginVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "login", Usage: "sign in and say as whom",
		Description: "Signs in as every other verb would with the same flags, and prints who that is. With --token-cache the next run finds the " +
			"sign-in again, encrypted by the system; without it nothing is remembered, and the verb is a test of the flags. The sign-in of " +
			"the Azure CLI and of Azure PowerShell is theirs: az login, Connect-AzAccount.",
		Flags:  azureFlags(),
		Action: appkit.Run(runLogin),
	}, appkit.Help{
		Examples: []string{p.Name + " login --auth browser --tenant contoso.onmicrosoft.com --token-cache", p.Name + " login --auth azure-cli"},
		Exit:     azureFaults,
	})
}

func runLogin(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	client, err := connect(ctx, e, c)
	if err != nil {
		return err
	}
	who, err := client.WhoAmI(ctx)
	if err != nil {
		return err
	}
	remembered := c.Bool("token-cache")
	e.Console.Result("login", map[string]any{"cloud": client.Cloud().Name, "endpoint": client.Cloud().Endpoint, "name": who.Name, "objectId": who.ObjectID,
		"appId": who.AppID, "tenant": who.Tenant, "remembered": remembered}, func(w io.Writer) {
		fmt.Fprintf(w, "cloud       %s, %s\nas          %s\nobject id   %s\ntenant      %s\nremembered  %v\n", client.Cloud().Name, client.Cloud().Endpoint, nameOf(who), who.ObjectID, who.Tenant, remembered)
	})
	return nil
}

// nameOf is the person, or else the application, that signed in.
func nameOf(who azure.Identity) string {
	if who.Name != "" {
		return console.Clean(who.Name)
	}
	return "application " + console.Clean(who.AppID)
}

func logoutVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "logout", Usage: "forget the sign-in that --token-cache kept",
		Description: "Removes azs-relay's own token cache and the account beside it. Bearers that are in use stay good for up to an hour, in Azure's " +
			"eyes; the sign-in of the Azure CLI and of Azure PowerShell is not touched.",
		Action: appkit.Run(runLogout),
	}, appkit.Help{Examples: []string{p.Name + " logout"}, Exit: []fault.Kind{fault.Medium}})
}

func runLogout(_ context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	gone, err := azure.Logout()
	if err != nil {
		return err
	}
	e.Console.Result("logout", map[string]any{"removed": append([]string{}, gone...)}, func(w io.Writer) {
		if len(gone) == 0 {
			fmt.Fprintln(w, "no sign-in was kept")
		}
		for _, f := range gone {
			fmt.Fprintf(w, "removed %s\n", f)
		}
	})
	return nil
}

func subscriptionsVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "subscriptions", Usage: "list the subscriptions that the identity sees",
		Description: "Prints id, state, kind, tenant and name of each. The kind is read from the quota id, the only hint that Azure gives: the " +
			"disconnected flow is for an Enterprise Agreement.",
		Flags:  azureFlags(),
		Action: appkit.Run(runSubscriptions),
	}, appkit.Help{Examples: []string{p.Name + " subscriptions --auth azure-cli"}, Exit: append([]fault.Kind{fault.NothingYet}, azureFaults...)})
}

// offer is a subscription as it is listed.
type offer struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	State   string `json:"state"`
	Tenant  string `json:"tenant"`
	QuotaID string `json:"quotaId"`
	Kind    string `json:"kind"`
	Foreign bool   `json:"foreign"` // of another tenant than the identity's: delegated
}

func runSubscriptions(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	client, err := connect(ctx, e, c)
	if err != nil {
		return err
	}
	who, err := client.WhoAmI(ctx)
	if err != nil {
		return err
	}
	found, err := client.Subscriptions(ctx)
	if err != nil {
		return err
	}
	all := []offer{}
	for _, s := range found {
		all = append(all, offer{s.ID.String(), s.Name, s.State, s.TenantID, s.QuotaID, kindOfOffer(s.QuotaID), foreign(who, s)})
	}
	e.Console.Result("subscriptions", map[string]any{"subscriptions": all}, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, o := range all {
			name := console.Clean(o.Name)
			if o.Foreign {
				name += " (delegated by another tenant)"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", o.ID, console.Clean(o.State), o.Kind, console.Clean(o.Tenant), name)
		}
		_ = t.Flush() // a lost standard output is reported by the console
	})
	if len(all) == 0 {
		return fault.New(fault.NothingYet, "%s sees no subscription in tenant %s", nameOf(who), who.Tenant).Hint("azs-relay subscriptions --tenant ITS-TENANT")
	}
	return nil
}

// foreign reports whether the identity is of another tenant than the
// subscription. That is allowed where the tenant delegated it.
func foreign(who azure.Identity, s azure.Subscription) bool {
	return who.Tenant != "" && s.TenantID != "" && !strings.EqualFold(who.Tenant, s.TenantID)
}

// kindOfOffer reads the kind of a subscription from its quota id. The mapping is
// an inference, so it is a hint and never a reason to refuse.
func kindOfOffer(quotaID string) string {
	for _, k := range []struct{ prefix, kind string }{
		{"EnterpriseAgreement", "Enterprise Agreement"}, {"CSP", "CSP"}, {"MSDN", "Visual Studio"}, {"FreeTrial", "free trial"},
		{"PayAsYouGo", "pay as you go"}, {"Sponsored", "sponsored"}, {"Internal", "internal"},
	} {
		if strings.HasPrefix(strings.ToLower(quotaID), strings.ToLower(k.prefix)) {
			return k.kind
		}
	}
	if quotaID == "" {
		return "unknown"
	}
	return console.Clean(quotaID)
}
