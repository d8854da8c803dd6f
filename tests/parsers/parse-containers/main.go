// parse-containers FILE [REFERENCE] reads a registries.conf as podman, skopeo, buildah and CRI-O do,
// and prints its registries, and the places where they look for REFERENCE, in order.
package main

import (
	_ "crypto/sha256" // for digests in references
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/types"
)

type place struct {
	Location string `json:"location"`
	Insecure bool   `json:"insecure"`
	Pull     string `json:"pull_from_mirror"`
}

type registry struct {
	Prefix     string  `json:"prefix"`
	Location   string  `json:"location"`
	Insecure   bool    `json:"insecure"`
	Blocked    bool    `json:"blocked"`
	DigestOnly bool    `json:"mirror_by_digest_only"`
	Mirrors    []place `json:"mirrors"`
}

type source struct {
	Reference string `json:"reference"`
	Insecure  bool   `json:"insecure"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run(words []string) error {
	if len(words) != 1 && len(words) != 2 {
		return errors.New("one file is needed, and perhaps a reference")
	}
	path := words[0]
	if _, err := os.Stat(path); err != nil {
		return err
	}
	// In place of the machine's other configuration.
	empty, err := os.MkdirTemp("", "parse-containers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(empty)
	context := &types.SystemContext{
		SystemRegistriesConfPath:    path,
		SystemRegistriesConfDirPath: empty,
		UserShortNameAliasConfPath:  filepath.Join(empty, "aliases.conf"),
	}
	settings, err := sysregistriesv2.TryUpdatingCache(context)
	if err != nil {
		return err
	}
	unknown, err := unknownKeys(path)
	if err != nil {
		return err
	}
	report := map[string]any{
		"registries":                    registries(settings.Registries),
		"unqualified_search_registries": append([]string{}, settings.UnqualifiedSearchRegistries...),
		"short_name_mode":               settings.ShortNameMode,
		"unknown":                       unknown,
	}
	if len(words) == 2 {
		if report["sources"], err = sources(context, words[1]); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

func registries(found []sysregistriesv2.Registry) []registry {
	all := []registry{}
	for _, each := range found {
		one := registry{
			Prefix:     each.Prefix,
			Location:   each.Location,
			Insecure:   each.Insecure,
			Blocked:    each.Blocked,
			DigestOnly: each.MirrorByDigestOnly,
			Mirrors:    []place{},
		}
		for _, m := range each.Mirrors {
			one.Mirrors = append(one.Mirrors, place{m.Location, m.Insecure, m.PullFromMirror})
		}
		all = append(all, one)
	}
	return all
}

// sources are null where the file says nothing of the image: it is then pulled from its own name.
func sources(context *types.SystemContext, text string) ([]source, error) {
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return nil, err
	}
	named = reference.TagNameOnly(named)
	found, err := sysregistriesv2.FindRegistry(context, named.String())
	if err != nil || found == nil {
		return nil, err
	}
	if found.Blocked {
		return nil, fmt.Errorf("%s is blocked", named)
	}
	pulls, err := found.PullSourcesFromReference(named)
	if err != nil {
		return nil, err
	}
	all := []source{}
	for _, each := range pulls {
		all = append(all, source{each.Reference.String(), each.Endpoint.Insecure})
	}
	return all, nil
}

// unknownKeys tells what the library only mentions in its debug log; the first, deprecated version
// of the format counts as unknown.
func unknownKeys(path string) ([]string, error) {
	meta, err := toml.DecodeFile(path, &sysregistriesv2.V2RegistriesConf{})
	if err != nil {
		return nil, err
	}
	keys := []string{}
	for _, key := range meta.Undecoded() {
		keys = append(keys, key.String())
	}
	return keys, nil
}
