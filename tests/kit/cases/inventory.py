"""Rows of an inventory (盘点) without a fault, for tests."""

__all__ = ["COLUMNS", "row"]

_WHOLE = {
    "目录名称": "信息资源{n}",
    "摘要": "第{n}号资源的摘要",
    "信息资源分类": "101001",
    "主题": "公共服务",
    "数据格式": "数据库",
    "数据项": "公民身份号码(字符型,18)；姓名(字符型，50)；出生日期（日期型）",
    "共享属性": "有条件共享",
    "共享方式": "批量交换、服务接口",
    "共享范围": "各级政务部门",
    "使用用途": "履行法定职责",
    "不予共享理由": "",
    "不予共享依据": "",
    "开放属性": "不予开放",
    "更新频率": "每日",
    "联系人": "数据资源科",
    "联系电话": "0571-88000000",
    "分类分级": "一般3级",
}
COLUMNS = [*_WHOLE]


def row(number: int, **changes: str) -> list[str]:
    """Return the cells of a row, some of them changed."""
    return [changes.get(name, text.format(n=number)) for name, text in _WHOLE.items()]
