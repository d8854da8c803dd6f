package main

import (
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

type nobody struct{}

func (nobody) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }

type source interface {
	Image(name.Reference, ...remote.Option) (v1.Image, error)
}

// pull reads all of an image for linux/amd64; digests are checked on the way.
func pull(from source, text string) error {
	reference, err := name.ParseReference(text)
	if err != nil {
		return err
	}
	platform := v1.Platform{OS: "linux", Architecture: "amd64"}
	image, err := from.Image(reference, remote.WithPlatform(platform))
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	config, err := image.ConfigName()
	if err != nil {
		return err
	}
	if _, err := image.RawConfigFile(); err != nil {
		return err
	}
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	digests := []string{}
	for _, layer := range layers {
		of, err := layer.Digest()
		if err != nil {
			return err
		}
		if err := drain(layer); err != nil {
			return fmt.Errorf("layer %s: %w", of, err)
		}
		digests = append(digests, of.String())
	}
	return show(map[string]any{
		"digest": digest.String(), "config": config.String(), "layers": digests,
	})
}

func drain(layer v1.Layer) error {
	content, err := layer.Compressed()
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, content); err != nil {
		content.Close()
		return err
	}
	return content.Close()
}
