"""An upstream to watch and to test against: images made on the spot, served as Docker Hub would."""
