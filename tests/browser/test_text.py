"""What users write is text, wherever it is shown: nothing of it is markup, nothing of it runs."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Dialog, expect

from browsing import MARKS, Seen, card, key_of, settle, started, tip

pytestmark = MARKS

IMAGE = "<img src=x onerror=alert(1)>"
SCRIPT = "<script>window.ran = 1</script>"
BREAKING = "\"'><svg onload=alert(2)>"
LINK = "javascript:alert(3)"


def test_what_users_write_is_shown_as_they_wrote_it(root: Path, seen: Seen) -> None:
    metrics = [IMAGE, SCRIPT, BREAKING]
    runs = []
    for seed in range(2):
        run = started(
            root, name=IMAGE, tags=[BREAKING, LINK], notes=SCRIPT,
            config={"seed": seed, IMAGE: SCRIPT, "path": LINK},
        )  # fmt: skip
        for step in range(5):
            run.log({name: float(step) for name in metrics}, step=step)
        run.finish("failed")
        runs.append(key_of(run))
    dialogs: list[str] = []
    tab = seen.context.new_page()

    def opened(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    tab.on("dialog", opened)
    run_page = f"/run/{runs[0]}"
    tab.goto(seen.served.url(run_page))
    for path, wanted in (
        ("/", [IMAGE]),
        (run_page, [IMAGE, BREAKING, LINK, *metrics]),
        (f"{run_page}?tab=config", [IMAGE, SCRIPT, LINK]),
        (f"{run_page}?tab=console", []),
        (f"{run_page}?tab=sessions", []),
        (f"{run_page}?tab=anomalies", []),
        (f"/compare?run={runs[0].replace('/', '%2F')}&run={runs[1].replace('/', '%2F')}", metrics),
    ):
        tab.goto(seen.served.address + path)
        settle(tab)
        for text in wanted:
            expect(tab.get_by_text(text).first).to_be_attached()
        made = tab.evaluate(
            "() => document.querySelectorAll('img[src=x], svg[onload], main script').length"
        )
        assert made == 0, path
        assert tab.evaluate("window.ran") is None
        assert tab.locator("a[href^='javascript:']").count() == 0
    tab.goto(seen.served.address + run_page)
    settle(tab)
    found = card(tab, SCRIPT)
    found.locator(".chart").focus()
    tab.keyboard.press("End")
    expect(tip(tab, SCRIPT)).to_contain_text("step 4")
    tab.get_by_role("button", name=f"Share {IMAGE}").first.click()
    expect(tab.locator(".share-menu").first).to_be_visible()
    assert dialogs == []


def test_addresses_are_text_too(seen: Seen) -> None:
    tab = seen.open("/")
    seen.expected.append("status of 4")
    for path in (
        "/run/p/%3Cimg%20src=x%20onerror=alert(1)%3E",
        "/?metric=%3Cimg%20src=x%20onerror=alert(1)%3E",
        "/run/%3Cscript%3Ewindow.ran=1%3C%2Fscript%3E/x?tab=%3Cscript%3E",
    ):
        tab.goto(seen.served.address + path)
        tab.wait_for_timeout(500)
        assert tab.evaluate("document.querySelectorAll('img, main script').length") == 0
        assert tab.evaluate("window.ran") is None
