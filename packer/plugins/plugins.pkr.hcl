// For Packer 1.7 and newer: `packer init packer/plugins` installs these, and packer/ then finds them. In a folder of its own,
// because Packer 1.6.6 (Debian 12) carries both plugins and does not know this block.
packer {
  required_version = ">= 1.11.0"

  required_plugins {
    qemu = {
      version = "~> 1.1"
      source  = "github.com/hashicorp/qemu"
    }
    ansible = {
      version = "~> 1.1"
      source  = "github.com/hashicorp/ansible"
    }
  }
}
