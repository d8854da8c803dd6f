// parse-buildkit FILE [REGISTRY...] reads a buildkitd.toml as buildkitd does, and prints its
// registries, and where buildkitd looks for the images of each REGISTRY, in order.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/util/resolver"
	settings "github.com/moby/buildkit/util/resolver/config"
	"github.com/pelletier/go-toml/v2"
)

type pair struct {
	Key  string `json:"key"`
	Cert string `json:"cert"`
}

type registry struct {
	Mirrors  []string `json:"mirrors"`
	HTTP     *bool    `json:"http"`
	Insecure *bool    `json:"insecure"`
	CA       []string `json:"ca"`
	Pairs    []pair   `json:"keypair"`
}

type host struct {
	Scheme       string   `json:"scheme"`
	Host         string   `json:"host"`
	Path         string   `json:"path"`
	Capabilities []string `json:"capabilities"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run(words []string) error {
	if len(words) == 0 {
		return errors.New("a file is needed")
	}
	content, err := os.ReadFile(words[0])
	if err != nil {
		return err
	}
	read, err := config.Load(bytes.NewReader(content))
	if err != nil {
		return err
	}
	unknown, err := unknownKeys(content)
	if err != nil {
		return err
	}
	registries := map[string]registry{}
	for name, each := range read.Registries {
		registries[name] = describe(each)
	}
	hosts := map[string][]host{}
	find := resolver.NewRegistryConfig(read.Registries)
	for _, name := range words[1:] {
		places, err := find(name)
		if err != nil {
			return err
		}
		for _, place := range places {
			hosts[name] = append(hosts[name], describeHost(place))
		}
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"registries": registries, "hosts": hosts, "unknown": unknown,
	})
}

func describe(from settings.RegistryConfig) registry {
	one := registry{
		Mirrors:  append([]string{}, from.Mirrors...),
		HTTP:     from.PlainHTTP,
		Insecure: from.Insecure,
		CA:       append([]string{}, from.RootCAs...),
		Pairs:    []pair{},
	}
	for _, each := range from.KeyPairs {
		one.Pairs = append(one.Pairs, pair{each.Key, each.Certificate})
	}
	return one
}

func describeHost(place docker.RegistryHost) host {
	one := host{place.Scheme, place.Host, place.Path, []string{}}
	for _, each := range []struct {
		bit  docker.HostCapabilities
		name string
	}{
		{docker.HostCapabilityPull, "pull"},
		{docker.HostCapabilityResolve, "resolve"},
		{docker.HostCapabilityPush, "push"},
	} {
		if place.Capabilities.Has(each.bit) {
			one.Capabilities = append(one.Capabilities, each.name)
		}
	}
	return one
}

// unknownKeys tells what buildkitd passes over.
func unknownKeys(content []byte) ([]string, error) {
	decoder := toml.NewDecoder(bytes.NewReader(content)).DisallowUnknownFields()
	keys := []string{}
	var missing *toml.StrictMissingError
	err := decoder.Decode(&config.Config{})
	if errors.As(err, &missing) {
		for _, each := range missing.Errors {
			keys = append(keys, strings.Join(each.Key(), "."))
		}
		return keys, nil
	}
	return keys, err
}
