"""Many writes at once, then a large range in pages of one revision, with asyncio."""

import asyncio

from etcd_pinwheel import AsyncClient


async def main() -> None:
    async with AsyncClient() as etcd:
        await asyncio.gather(*(etcd.put(f"page/{n:04}", str(n)) for n in range(250)))
        async for page in etcd.pages("page/", prefix=True, page_size=100):
            print(len(page), "keys of", page.count, "left, as of the same revision")
        await etcd.delete_prefix("page/")


asyncio.run(main())
