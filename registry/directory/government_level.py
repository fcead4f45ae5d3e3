"""Closed lists of the directory, which commands read without loading its rules."""

from enum import StrEnum

__all__ = ["DepartmentKind", "GovernmentLevel", "Zone"]


class GovernmentLevel(StrEnum):
    """Level of government to which a department belongs."""

    NATIONAL = "national"
    PROVINCE = "province"
    CITY = "city"
    COUNTY = "county"
    TOWNSHIP = "township"


class DepartmentKind(StrEnum):
    """What a department does in the pool; one may be several of the first three, and a contractor is nothing else."""

    PROVIDER = "provider"  # 提供部门: catalogues resources
    CONSUMER = "consumer"  # 使用部门: asks for grants
    AUTHORITY = "authority"  # 政务数据共享主管部门
    CONTRACTOR = "contractor"  # 受托方: works for the department above it until its contract ends
    PUBLIC = "public"  # 企业、公众: what it draws leaves the government


class Zone(StrEnum):
    """Network zone of a department or a resource."""

    DEFAULT = "default"  # the one zone of a pool that tells none apart
    INNER = "inner"  # 政务内网
    OUTER = "outer"  # 政务外网
    INTERNET = "internet"  # 互联网
