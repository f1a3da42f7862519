"""The web app: a screenshot is dropped, watched as it becomes a page, compared, edited and downloaded, on this machine.

Read `run` (how it is put together and served), `door` (who may come in), `studio` (the one thread in which pages are
made) and `store` (what is kept), then `page` (what is seen).
"""
