// Package fleet reads the file that says where the stamps of a cloud operator are
// to be registered, and writes the report of a run over all of them.
//
// Property: a stamp is registered where its own row says, or not at all. A row is
// found by the cloud id, which the stamp cannot lie about, or by the label of the
// pinned agent; if it names both, both must agree. Two rows for one stamp, an
// unknown column and a subscription that is no id end the run before anything is
// sent, because a fleet file is written by hand and a wrong column is a wrong
// subscription.
package fleet

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// Bounds of a fleet file.
const (
	MaxBytes  = 4 << 20
	MaxStamps = 20000
)

// Stamp is a row: which stamp, and where it belongs. Agent or CloudID is set.
type Stamp struct {
	Agent        string `yaml:"agent"`        // label of the pinned agent
	CloudID      string `yaml:"cloud-id"`     // GUID
	Subscription string `yaml:"subscription"` // GUID
	Group        string `yaml:"group"`        // "" is what the request expects, else azurestack
	Name         string `yaml:"name"`         // "" is what the request expects, else AzureStack-<cloud id>
	Location     string `yaml:"location"`     // of a group that must be created; "" is the cloud's default
}

// columns are the names of the columns, in the order of the example in the help.
var columns = []string{"agent", "cloud-id", "subscription", "group", "name", "location"}

func (s *Stamp) field(column string) *string {
	return map[string]*string{"agent": &s.Agent, "cloud-id": &s.CloudID, "subscription": &s.Subscription,
		"group": &s.Group, "name": &s.Name, "location": &s.Location}[column]
}

func (s Stamp) String() string {
	if s.CloudID != "" {
		return fmt.Sprintf("stamp %q", s.CloudID)
	}
	return fmt.Sprintf("agent %q", s.Agent)
}

// Fleet is a fleet file.
type Fleet struct {
	Stamps  []Stamp
	byCloud map[string]int
	byAgent map[string]int
}

// Parse reads a fleet file: CSV with a header line when the name ends in .csv, a
// list of mappings under "stamps" when it ends in .yaml or .yml. Every error is a
// fault.Usage that names the row.
func Parse(name string, data []byte) (*Fleet, error) {
	if len(data) > MaxBytes {
		return nil, fault.New(fault.Usage, "fleet file %q has %d bytes, more than %d", name, len(data), MaxBytes)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	read := map[string]func([]byte) ([]Stamp, error){".csv": readCSV, ".yaml": readYAML, ".yml": readYAML}[strings.ToLower(filepath.Ext(name))]
	if read == nil {
		return nil, fault.New(fault.Usage, "the name of fleet file %q does not end in .csv, .yaml or .yml", name)
	}
	stamps, err := read(data)
	if err == nil {
		var f *Fleet
		if f, err = index(stamps); err == nil {
			return f, nil
		}
	}
	return nil, fault.New(fault.Usage, "fleet file %q: %w", name, err)
}

func readCSV(data []byte) ([]Stamp, error) {
	r := csv.NewReader(bytes.NewReader(data))
	r.Comment = '#'
	r.TrimLeadingSpace = true
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty")
	}
	if err != nil {
		return nil, err
	}
	for i, column := range header {
		header[i] = strings.ToLower(strings.TrimSpace(column))
		if !slices.Contains(columns, header[i]) {
			return nil, fmt.Errorf("unknown column %q; there are %s", column, strings.Join(columns, ", "))
		}
		if slices.Contains(header[:i], header[i]) {
			return nil, fmt.Errorf("column %q stands there twice", column)
		}
	}
	var stamps []Stamp
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return stamps, nil
		}
		if err != nil {
			return nil, err
		}
		if len(stamps) == MaxStamps {
			return nil, fmt.Errorf("more than %d stamps", MaxStamps)
		}
		var s Stamp
		for i, value := range row {
			*s.field(header[i]) = strings.TrimSpace(value)
		}
		stamps = append(stamps, s)
	}
}

func readYAML(data []byte) ([]Stamp, error) {
	var file struct {
		Stamps []Stamp `yaml:"stamps"`
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it is empty")
		}
		return nil, err
	}
	var more any
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("a second document follows the first")
	}
	if len(file.Stamps) > MaxStamps {
		return nil, fmt.Errorf("more than %d stamps", MaxStamps)
	}
	return file.Stamps, nil
}

func index(stamps []Stamp) (*Fleet, error) {
	f := &Fleet{Stamps: stamps, byCloud: map[string]int{}, byAgent: map[string]int{}}
	if len(stamps) == 0 {
		return nil, errors.New("it names no stamp")
	}
	for i, s := range stamps {
		switch _, err := azure.ParseSubscriptionID(s.Subscription); {
		case s.CloudID == "" && s.Agent == "":
			return nil, fmt.Errorf("stamp %d has neither agent nor cloud-id", i+1)
		case s.Subscription == "":
			return nil, fmt.Errorf("stamp %d (%s) has no subscription", i+1, s)
		case err != nil:
			return nil, fmt.Errorf("stamp %d (%s): %w", i+1, s, err)
		}
		// An agent may serve several stamps, each then in a row of its own with its cloud id.
		key, table := strings.ToLower(s.CloudID), f.byCloud
		if s.CloudID == "" {
			key, table = s.Agent, f.byAgent
		}
		if first, twice := table[key]; twice {
			return nil, fmt.Errorf("stamps %d and %d are both %s", first+1, i+1, s)
		}
		table[key] = i
	}
	return f, nil
}

// Find returns the row of the stamp with the cloud id that the pinned agent with
// the label asks for. The row of the cloud id is looked for first. The error is a
// fault.NotForUs.
func (f *Fleet) Find(agent, cloudID string) (Stamp, error) {
	if i, ok := f.byCloud[strings.ToLower(cloudID)]; ok && cloudID != "" {
		s := f.Stamps[i]
		if s.Agent != "" && s.Agent != agent {
			return Stamp{}, fault.New(fault.NotForUs, "the fleet file gives stamp %q to agent %q, agent %q asks for it", cloudID, s.Agent, agent)
		}
		return s, nil
	}
	if i, ok := f.byAgent[agent]; ok {
		return f.Stamps[i], nil
	}
	return Stamp{}, fault.New(fault.NotForUs, "the fleet file names neither stamp %q nor agent %q", cloudID, agent)
}
