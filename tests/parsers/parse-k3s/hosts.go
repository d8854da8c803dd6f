package main

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rancher/wharfie/pkg/registries"
)

// K3s cannot be had as a module: what follows are the rules of its pkg/agent/containerd/config.go
// and of its template for hosts.toml (pkg/agent/templates/templates.go), but for the registry that
// can be embedded in K3s.

// An endpoint is a place to pull from; a nil address writes none, an empty one writes `server = ""`.
type endpoint struct {
	address  *url.URL
	override bool
	config   registries.RegistryConfig
	rewrites map[string]string
}

// A namespace is what is written for a name of a registry: the endpoints, then the default one.
type namespace struct {
	endpoints []endpoint
	fallback  *endpoint
}

type told struct {
	Server    *string  `json:"server"`
	Endpoints []string `json:"endpoints"`
	File      string   `json:"file"`
}

func layOut(registry *registries.Registry, root string, fallbacks bool, unknown []string) error {
	spaces, ignored := namespaces(registry, fallbacks)
	hosts := map[string]told{}
	for name, space := range spaces {
		file := filepath.Join(root, name, "hosts.toml")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(space.toml()), 0o644); err != nil {
			return err
		}
		hosts[name] = space.told(file)
	}
	logins := map[string]*registries.AuthConfig{}
	for host, config := range registry.Configs {
		if config.Auth != nil {
			logins[host] = config.Auth
		}
	}
	return show(map[string]any{
		"hosts": hosts, "auth": logins, "ignored": ignored, "unknown": unknown,
	})
}

// namespaces are the directories to write, by name, and what K3s only warns of.
func namespaces(registry *registries.Registry, fallbacks bool) (map[string]namespace, []string) {
	spaces, ignored := map[string]namespace{}, []string{}
	for host, config := range registry.Configs {
		fallback, err := defaultEndpoint(host, config)
		if err != nil {
			ignored = append(ignored, fmt.Sprintf("configs %s: %v", host, err))
			continue
		}
		spaces[directory(host)] = namespace{fallback: fallback}
	}
	for host, mirror := range registry.Mirrors {
		// Looked up by its name in the file: an entry for "*" is never found among the configs.
		space, found := spaces[host]
		if !found {
			fallback, err := defaultEndpoint(host, configOf(registry, host))
			if err != nil {
				ignored = append(ignored, fmt.Sprintf("mirrors %s: %v", host, err))
				continue
			}
			switch {
			case !fallbacks:
				fallback = nil
			case host == "*":
				fallback = &endpoint{address: &url.URL{}}
			}
			space.fallback = fallback
		}
		for _, problem := range space.add(registry, mirror) {
			ignored = append(ignored, fmt.Sprintf("mirrors %s: %s", host, problem))
		}
		spaces[directory(host)] = space
	}
	for name, space := range spaces {
		if len(space.endpoints) == 0 && !space.fallback.configured() {
			delete(spaces, name)
		}
	}
	slices.Sort(ignored)
	return spaces, ignored
}

func (space *namespace) add(registry *registries.Registry, mirror registries.Mirror) []string {
	problems, seen := []string{}, map[string]bool{}
	for index, text := range mirror.Endpoints {
		host, address, override, err := normal(text)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", text, err))
			continue
		}
		if seen[address.String()] {
			problems = append(problems, fmt.Sprintf("%s: there already", text))
			continue
		}
		seen[address.String()] = true
		made := endpoint{address, override, configOf(registry, host), mirror.Rewrites}
		last := index+1 == len(mirror.Endpoints)
		if last && space.fallback.text() == made.text() {
			space.fallback = &made
		} else {
			space.endpoints = append(space.endpoints, made)
		}
	}
	return problems
}

func defaultEndpoint(host string, config registries.RegistryConfig) (*endpoint, error) {
	_, address, _, err := normal(host)
	if err != nil {
		return nil, err
	}
	if host == "*" {
		address = nil
	}
	return &endpoint{address: address, config: config}, nil
}

// normal gives the name whose config applies, the address, and whether its path is kept as it is.
func normal(text string) (string, *url.URL, bool, error) {
	if !strings.Contains(text, "://") {
		text = "//" + text
	}
	address, err := url.Parse(text)
	if err != nil {
		return "", nil, false, err
	}
	if address.Scheme == "" {
		address.Scheme = "https"
		if port := address.Port(); loopback(address.Host) && port != "" && port != "443" {
			address.Scheme = "http"
		}
	}
	name := address.Host
	address.Host = served(name)
	if address.Host == "registry-1.docker.io" {
		name = "docker.io"
	}
	switch address.Path {
	case "", "/", "/v2":
		address.Path = "/v2"
		return name, address, false, nil
	}
	return name, address, true, nil
}

func configOf(registry *registries.Registry, host string) registries.RegistryConfig {
	if config, found := registry.Configs[served(host)]; found {
		return config
	}
	return registry.Configs[host]
}

func served(host string) string {
	if host == "docker.io" {
		return "registry-1.docker.io"
	}
	return host
}

func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func directory(host string) string {
	if host == "*" {
		return "_default"
	}
	return host
}

func (one *endpoint) text() string {
	if one == nil || one.address == nil {
		return ""
	}
	return one.address.String()
}

func (one *endpoint) configured() bool {
	return one != nil && (one.override || one.config.Auth != nil || one.config.TLS != nil ||
		len(one.rewrites) > 0)
}

func (space namespace) told(file string) told {
	found := told{Endpoints: []string{}, File: file}
	if space.fallback != nil && space.fallback.address != nil {
		server := space.fallback.text()
		found.Server = &server
	}
	for _, one := range space.endpoints {
		found.Endpoints = append(found.Endpoints, one.text())
	}
	return found
}

func (space namespace) toml() string {
	lines := []string{"# As K3s writes it."}
	if one := space.fallback; one != nil {
		if one.address != nil {
			lines = append(lines, fmt.Sprintf(`server = "%s"`, one.address))
			lines = append(lines, `capabilities = ["pull", "resolve", "push"]`)
		}
		lines = append(lines, tlsLines(one.config.TLS)...)
	}
	lines = append(lines, "", "[host]")
	for _, one := range space.endpoints {
		table := fmt.Sprintf(`host."%s"`, one.address)
		lines = append(lines, fmt.Sprintf("[%s]", table), `capabilities = ["pull", "resolve"]`)
		if one.override {
			lines = append(lines, "override_path = true")
		}
		lines = append(lines, tlsLines(one.config.TLS)...)
		if len(one.rewrites) > 0 {
			lines = append(lines, fmt.Sprintf("[%s.rewrite]", table))
			for _, pattern := range slices.Sorted(maps.Keys(one.rewrites)) {
				lines = append(lines, fmt.Sprintf(`"%s" = "%s"`, pattern, one.rewrites[pattern]))
			}
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func tlsLines(tls *registries.TLSConfig) []string {
	if tls == nil {
		return nil
	}
	lines := []string{}
	if tls.CAFile != "" {
		lines = append(lines, fmt.Sprintf("ca = [%q]", tls.CAFile))
	}
	if tls.CertFile != "" || tls.KeyFile != "" {
		lines = append(lines, fmt.Sprintf("client = [[%q, %q]]", tls.CertFile, tls.KeyFile))
	}
	if tls.InsecureSkipVerify {
		lines = append(lines, "skip_verify = true")
	}
	return lines
}
