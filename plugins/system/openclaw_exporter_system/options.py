"""The options: which groups of metrics, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Group: TypeAlias = Literal[
    "cpu", "memory", "load", "disk", "network", "process", "uptime", "pids", "filesystem"
]

NETWORK_FILESYSTEMS: Final = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.*", "gfs2", "glusterfs", "gpfs", "lustre"),
    *("ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs", "virtiofs"),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The table `[plugins.system]`. Filters are shell patterns; what matches one is left out.

    Attributes:
        groups: Which groups of metrics to read.
        limits: Whose limits count for CPUs, memory and tasks: those of the cgroups (version 2) where the
            exporter runs, such as a container's or a systemd slice's, or the host's.
        service_limits: Count the limits of the exporter's own systemd service too, as where Chimera runs in
            the same service.
        per_cpu: Give CPU time for each logical CPU (attribute `cpu.logical_number`) rather than for all;
            where a cgroup limits CPU time, there is only the time of all.
        uptime: Whose uptime goes into the heartbeat: the machine's, or that of the exporter's own process.
        exclude_filesystem_types: Filesystem types to leave out; by default, those of node_exporter.
        exclude_mountpoints: Mount points to leave out; by default, those of node_exporter and what comes and
            goes with containers and sessions.
        exclude_devices: Block devices to leave out, by their kernel names; partitions are by default, as
            with node_exporter.
        exclude_interfaces: Network interfaces to leave out.
        network_filesystems: Ask network filesystems too. One whose server is away then stops the
            collector `filesystem` until the server is back.
    """

    groups: tuple[Group, ...] = (
        *("cpu", "memory", "load", "disk", "network", "process", "uptime", "pids", "filesystem"),
    )
    limits: Literal["cgroup", "host"] = "cgroup"
    service_limits: bool = False
    per_cpu: bool = False
    uptime: Literal["host", "process"] = "host"
    exclude_filesystem_types: tuple[str, ...] = (
        *("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs"),
        *("efivarfs", "erofs", "fusectl", "hugetlbfs", "iso9660", "mqueue", "nsfs", "overlay", "proc"),
        *("procfs", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "squashfs", "sysfs", "tracefs"),
    )
    exclude_mountpoints: tuple[str, ...] = (
        *("/dev", "/dev/*", "/proc", "/proc/*", "/sys", "/sys/*", "/run", "/run/*", "/snap/*"),
        *("/var/lib/containers/storage/*", "/var/lib/docker/*", "/var/lib/kubelet/*", "/etc/*"),
    )
    exclude_devices: tuple[str, ...] = (
        *("loop*", "ram*", "zram*", "fd[0-9]*", "sr[0-9]*", "[hsv]d[a-z]*[0-9]", "xvd[a-z]*[0-9]"),
        *("nvme*n*p[0-9]*", "mmcblk*p[0-9]*", "mmcblk*boot*"),
    )
    exclude_interfaces: tuple[str, ...] = (
        *("lo", "veth*", "docker[0-9]*", "br-*", "virbr*", "cali*", "cni*", "flannel*", "cilium*", "lxc*"),
        *("tap*", "dummy*", "ifb*", "sit[0-9]*", "tunl[0-9]*", "kube-ipvs*", "nodelocaldns"),
    )
    network_filesystems: bool = False
