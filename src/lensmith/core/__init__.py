"""What every layer may use: errors, configuration, types, files, images, the endpoint protocol and its exposure."""
