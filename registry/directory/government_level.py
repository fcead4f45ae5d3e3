"""Levels of government, which commands read without loading the rules of the directory."""

from enum import StrEnum

__all__ = ["GovernmentLevel"]


class GovernmentLevel(StrEnum):
    """Level of government to which a department belongs."""

    NATIONAL = "national"
    PROVINCE = "province"
    CITY = "city"
    COUNTY = "county"
    TOWNSHIP = "township"
