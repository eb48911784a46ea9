"""Take the README's pictures of the sample chat and of the admin. `make gallery` runs it."""

import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from demo.preparation import Demo
from tests.browser.gallery import COLOURS, OF_THE_DEMO, PICTURES
from tests.demo.machines import running_demo
from tests.demo.test_chat_in_browser import ask, follow_the_link, last_message, sign_in


def chat_with_its_orders(browser: Browser, demo: Demo) -> Page:
    """Ada's chat after she has signed in."""
    chat = _asked(browser, demo)
    page = follow_the_link(chat)
    sign_in(page, demo, "ada")
    page.get_by_role("button", name="Allow", exact=True).click()
    last_message(chat, "Walking boots")
    return chat


def admins_list_of_challenges(browser: Browser, demo: Demo) -> Page:
    """The list after three chats: one completed, one denied, one open."""
    denied = _asked(browser, demo)
    page = follow_the_link(denied)
    sign_in(page, demo, "rita")
    page.get_by_role("button", name="Don't allow").click()
    last_message(denied, "You are not signed in")
    _asked(browser, demo)
    admin = browser.new_page(viewport={"width": 1280, "height": 570})
    admin.goto(f"{demo.addresses.product}/admin/")
    admin.get_by_label("Username").fill("admin")
    admin.locator("input[type=password]").fill(demo.admin_password)
    admin.keyboard.press("Enter")
    admin.wait_for_url("**/admin/")
    admin.evaluate("localStorage.setItem('django.admin.navSidebarIsOpen', 'false')")
    admin.goto(f"{demo.addresses.product}/admin/conversations/challenge/")
    return admin


def _asked(browser: Browser, demo: Demo) -> Page:
    chat = browser.new_page(viewport={"width": 720, "height": 640})
    chat.goto(demo.addresses.chat)
    ask(chat, "Where is my order?")
    last_message(chat, "Open the sign-in page")
    return chat


def keep(page: Page, name: str) -> None:
    """Save a picture with few colours. Text and plain backgrounds need no more."""
    file = PICTURES / f"{name}.png"
    page.screenshot(path=file, animations="disabled")
    picture = Image.open(file).convert("RGB")
    picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(file, optimize=True)


def main() -> None:
    """Take both pictures in one demo."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_demo(Path(folder) / "demo") as demo,
        sync_playwright() as tool,
    ):
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, page in zip(OF_THE_DEMO, (chat_with_its_orders, admins_list_of_challenges), strict=True):
            keep(page(browser, demo), name)
        browser.close()


if __name__ == "__main__":
    main()
