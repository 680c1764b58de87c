"""Building the host image: five stages, each with a gate; what they keep in the work folder; the virtual machine.

preflight   tools, acceleration, disk, keys, checksum, template, playbooks    preflight.py
build       the cloud image boots once, at its size                           packer.py
provision   the roles, their health checks, then the guest is cleaned         packer.py
test        hygiene of the disk, two boots, health and tests over SSH         signoff.py, guest.py
finalise    compressed, described, summed, published at once                  publish.py
"""
