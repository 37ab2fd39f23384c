package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

const ownModules = "github.com/azs-courier/azs-courier/"

// part is a module that a program links. The standard library is one of them.
type part struct {
	path, version string
	sum           string // h1: of go.sum; "" for the standard library
}

func (p part) String() string { return p.path + "@" + p.version }

// linked returns the modules that a program links, by its own account (what
// `go version -m` prints), without ours.
func linked(program []byte) ([]part, error) {
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil, err
	}
	parts := []part{{path: "std", version: strings.TrimPrefix(info.GoVersion, "go")}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		if strings.HasPrefix(m.Path, ownModules) {
			continue
		}
		if m.Sum == "" {
			return nil, fmt.Errorf("module %s %s has no checksum", m.Path, m.Version)
		}
		parts = append(parts, part{m.Path, m.Version, m.Sum})
	}
	return parts, nil
}

// noticeName fits the files at the top of a module that its licence wants kept.
var noticeName = regexp.MustCompile(`(?i)^(un)?(licen[sc]e|copying|notice|patents|copyright)([-._].*)?$`)

// licences returns those files of each part of the program at dir, by
// "MODULE@VERSION/FILE". A part without a licence is an error.
func (r *release) licences(ctx context.Context, p platform, dir string, parts []part) (map[string][]byte, error) {
	list, err := output(ctx, r.root, append(slices.Clone(offline), "GOOS="+p.os, "GOARCH="+p.arch),
		"go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}@{{.Version}} {{.Dir}}{{end}}", dir)
	if err != nil {
		return nil, err
	}
	source := map[string]string{}
	for line := range strings.Lines(list) {
		if name, at, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			source[name] = at
		}
	}
	texts := map[string][]byte{}
	for _, p := range parts {
		dir := source[p.String()]
		if p.path == "std" {
			root, err := output(ctx, r.root, offline, "go", "env", "GOROOT")
			if err != nil {
				return nil, err
			}
			dir = strings.TrimSpace(root)
		}
		if dir == "" {
			return nil, fmt.Errorf("the source of %s is not here: go mod download", p)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		before := len(texts)
		for _, e := range entries {
			if !e.Type().IsRegular() || !noticeName.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			texts[p.String()+"/"+e.Name()] = text
		}
		if len(texts) == before {
			return nil, fmt.Errorf("%s has no licence in %s", p, dir)
		}
	}
	return texts, nil
}

// materials returns the bill of materials of a program: CycloneDX 1.6 in JSON.
func (r *release) materials(name string, p platform, program []byte, parts []part) ([]byte, error) {
	bom := cdx.NewBOM()
	sum := sha256.Sum256(program)
	bom.Metadata = &cdx.Metadata{
		Timestamp: r.time.Format("2006-01-02T15:04:05Z"),
		Component: &cdx.Component{
			BOMRef: name, Type: cdx.ComponentTypeApplication, Name: p.file(name), Version: r.version,
			Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
			Properties: &[]cdx.Property{{Name: "platform", Value: p.os + "/" + p.arch}, {Name: "commit", Value: r.commit},
				{Name: "go", Value: "go" + parts[0].version}},
		},
	}
	var components []cdx.Component
	var refs []string
	for _, part := range parts {
		purl := "pkg:golang/" + part.String()
		c := cdx.Component{BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: part.path, Version: part.version, PackageURL: purl}
		if part.sum != "" { // of the module's files, as go.sum has it, which is no hash of one file
			c.Properties = &[]cdx.Property{{Name: "go.sum", Value: part.sum}}
		}
		components, refs = append(components, c), append(refs, purl)
	}
	bom.Components, bom.Dependencies = &components, &[]cdx.Dependency{{Ref: name, Dependencies: &refs}}
	var out bytes.Buffer
	err := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
	return out.Bytes(), err
}
