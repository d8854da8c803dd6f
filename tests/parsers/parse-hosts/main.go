// parse-hosts DIR REGISTRY prints where containerd looks for the images of a registry, in order,
// when DIR is its config_path.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/pelletier/go-toml/v2"
	"github.com/sirupsen/logrus"
)

type host struct {
	Scheme       string   `json:"scheme"`
	Host         string   `json:"host"`
	Path         string   `json:"path"`
	Capabilities []string `json:"capabilities"`
	Header       []string `json:"header"`
	CA           bool     `json:"ca"`
	Clients      int      `json:"client_certificates"`
	SkipVerify   bool     `json:"skip_verify"`
	// Tries https, then http; what it trusts cannot be seen then.
	Fallback bool `json:"http_fallback"`
}

// The keys of containerd's docs/hosts.md, to tell which of a file's are none of them.
type table struct {
	Capabilities any  `toml:"capabilities"`
	CA           any  `toml:"ca"`
	Client       any  `toml:"client"`
	SkipVerify   bool `toml:"skip_verify"`
	Header       any  `toml:"header"`
	OverridePath bool `toml:"override_path"`
	DialTimeout  any  `toml:"dial_timeout"`
}

type document struct {
	table
	Server string           `toml:"server"`
	Host   map[string]table `toml:"host"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run(words []string) error {
	if len(words) != 2 {
		return errors.New("a directory and a registry are needed")
	}
	if _, err := os.Stat(words[0]); err != nil {
		return err
	}
	find := config.HostDirFromRoot(words[0])
	directory, err := find(words[1])
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	// Of a file that it cannot read containerd only logs, and goes on without it.
	heard := &errorLog{}
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	logger.AddHook(heard)
	context := log.WithLogger(context.Background(), logrus.NewEntry(logger))
	places, err := config.ConfigureHosts(context, config.HostOptions{HostDir: find})(words[1])
	if err = errors.Join(append(heard.errors, err)...); err != nil {
		return err
	}
	hosts := []host{}
	for _, place := range places {
		hosts = append(hosts, describe(place))
	}
	unknown, err := unknownKeys(directory)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"directory": filepath.Base(directory), "hosts": hosts, "unknown": unknown,
	})
}

type errorLog struct{ errors []error }

func (*errorLog) Levels() []logrus.Level { return []logrus.Level{logrus.ErrorLevel} }

func (heard *errorLog) Fire(entry *logrus.Entry) error {
	heard.errors = append(heard.errors, fmt.Errorf("%s: %v", entry.Message, entry.Data["error"]))
	return nil
}

func describe(place docker.RegistryHost) host {
	one := host{
		Scheme:       place.Scheme,
		Host:         place.Host,
		Path:         place.Path,
		Capabilities: []string{},
		Header:       append([]string{}, slices.Sorted(maps.Keys(place.Header))...),
	}
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
	transport, plain := place.Client.Transport.(*http.Transport)
	one.Fallback = !plain
	if plain {
		settings := transport.TLSClientConfig
		one.CA = settings.RootCAs != nil
		one.Clients = len(settings.Certificates)
		one.SkipVerify = settings.InsecureSkipVerify
	}
	return one
}

func unknownKeys(directory string) ([]string, error) {
	content, err := os.ReadFile(filepath.Join(directory, "hosts.toml"))
	if directory == "" || errors.Is(err, os.ErrNotExist) {
		return []string{}, nil
	}
	if err != nil {
		return nil, err
	}
	decoder := toml.NewDecoder(bytes.NewReader(content)).DisallowUnknownFields()
	var missing *toml.StrictMissingError
	if err = decoder.Decode(&document{}); errors.As(err, &missing) {
		keys := []string{}
		for _, each := range missing.Errors {
			keys = append(keys, strings.Join(each.Key(), "."))
		}
		return keys, nil
	}
	return []string{}, err
}
