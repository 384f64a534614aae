"""The playground of a running `csrm serve` in headless Chromium, driven by Selenium.

Needs Chromium and its driver: `apt-get install -y chromium chromium-driver` on Debian; set
CSRM_CHROMIUM and CSRM_CHROMEDRIVER where they are elsewhere. Nothing is skipped: without them the
tests fail and say so.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from csrm_server import REPOSITORY, Server, Traffic, start_server
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

import csrm

WAIT_S = 30
INSTALL = "install it: apt-get install -y chromium chromium-driver"
KEY = "key-of-the-page-0001"
MARKUP = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"


def program(variable: str, *names: str) -> str:
    """The path of a program. Fails with what to install."""
    stated = os.environ.get(variable)
    found = [stated] if stated else [path for name in names if (path := shutil.which(name))]
    if not found or not Path(found[0]).is_file():
        pytest.fail(f"{names[0]} was not found; {INSTALL}")
    return found[0]


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """One browser for all tests; its log has every request and every console line."""
    os.environ.update(SE_OFFLINE="true", SE_AVOID_STATS="true")
    options = webdriver.ChromeOptions()
    options.binary_location = program("CSRM_CHROMIUM", "chromium", "chromium-browser")
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses its sandbox to root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(program("CSRM_CHROMEDRIVER", "chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_window_size(1400, 900)
    yield driver
    driver.quit()


class Page:
    """The playground in the browser, as its user sees it."""

    def __init__(self, browser: webdriver.Chrome, url: str, part: str = "") -> None:
        browser.get("about:blank")
        for kind in ("browser", "performance"):
            browser.get_log(kind)  # what tests before this one left
        self.browser = browser
        self.url = url
        browser.get(f"{url}/{part}")

    def text(self, id: str) -> str:
        return str(self.browser.find_element(By.ID, id).text)

    def wait(self, what: Any) -> Any:
        """What `what(page)` gives once it is true; it must become so."""
        message = f"verdict {self.verdict()}: {self.text('error')} {self.text('policy-state')}"
        return WebDriverWait(self.browser, WAIT_S, 0.05).until(lambda _: what(self), message)

    def verdict(self) -> str:
        """The word that is shown; "" while it belongs to an earlier text."""
        pane = self.browser.find_element(By.ID, "verdict")
        if pane.get_attribute("aria-busy"):
            return ""
        word = self.text("word")
        assert str(pane.get_attribute("data-verdict")) == word.lower().replace("judging", "waiting")
        return word

    def wait_verdict(self, word: str) -> None:
        self.wait(lambda page: page.verdict() == word)

    def turns(self) -> list[Any]:
        return list(self.browser.find_elements(By.CSS_SELECTOR, "#turns textarea"))

    def turn_words(self) -> list[str]:
        found = self.browser.find_elements(By.CSS_SELECTOR, "#turns .turn-word")
        return [element.text for element in found]

    def paste(self, messages: object) -> None:
        """Replaces the conversation by pasted JSON, as a user does."""
        self.browser.find_element(By.ID, "paste-open").click()
        self.browser.find_element(By.ID, "paste-text").send_keys(json.dumps(messages))
        self.browser.find_element(By.ID, "paste-use").click()

    def write_policy(self, text: str) -> None:
        element = self.browser.find_element(By.ID, "policy")
        element.send_keys(Keys.CONTROL, "a")
        element.send_keys(text)

    def console(self) -> list[str]:
        """Errors of the page's own: not what the browser says of an answer's status."""
        lines = self.browser.get_log("browser")
        bad = [line for line in lines if line["level"] in ("WARNING", "SEVERE")]
        return [line["message"] for line in bad if line["source"] != "network"]

    def requests(self) -> list[tuple[str, str]]:
        """Method and address of each request since the page was opened."""
        events = [
            json.loads(line["message"])["message"] for line in self.browser.get_log("performance")
        ]
        sent = [one["params"] for one in events if one["method"] == "Network.requestWillBeSent"]
        return [(one["request"]["method"], one["request"]["url"]) for one in sent]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_page_typing_changes_the_verdict_without_errors_or_other_hosts(
    browser: webdriver.Chrome, csrm_server: Server, traffic: Traffic
) -> None:
    page = Page(browser, csrm_server.url)
    page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))
    assert Select(browser.find_element(By.ID, "config")).first_selected_option.text.startswith(
        "general-default"
    )
    page.paste(user(traffic.allowed))
    page.wait_verdict("Compliant")
    compliant = float(page.text("compliance"))
    turn = page.turns()[0]
    turn.send_keys(Keys.CONTROL, "a")
    turn.send_keys(traffic.violating)
    page.wait_verdict("Violation")
    assert float(page.text("compliance")) < 0.5 < compliant
    assert page.text("threshold") == "0.50"
    assert page.text("reward").startswith("−")
    assert page.text("latency").endswith(" ms")
    page.wait(lambda page: page.turn_words() == [f"{page.text('compliance')} violation"])
    page.wait(lambda page: page.text("rules").startswith("Harassment"))
    assert page.console() == []
    sent = page.requests()
    assert len(sent) > 10
    assert [url for _, url in sent if not url.startswith(f"{csrm_server.url}/")] == []
    assert {method for method, _ in sent} == {"GET", "POST"}


def test_page_each_turn_has_its_compliance(
    browser: webdriver.Chrome, csrm_server: Server, traffic: Traffic
) -> None:
    page = Page(browser, csrm_server.url)
    page.paste(
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": traffic.question}]},
                {"role": "assistant", "content": traffic.violating_answer},
                {"role": "user", "content": "Thank you."},
            ]
        }
    )
    page.wait(lambda page: len(page.turns()) == 3 and all(page.turn_words()))
    words = page.turn_words()
    assert words[0].endswith(" compliant")
    assert words[1].endswith(" violation")
    browser.find_elements(By.CSS_SELECTOR, "#turns .remove")[2].click()
    page.wait_verdict("Violation")
    assert words[1] == f"{page.text('compliance')} violation"  # the same score either way
    page.paste([{"role": "developer", "content": "Be helpful."}, *user(traffic.allowed)])
    page.wait(lambda page: page.turn_words()[0] == "context")


def test_page_policy_text_is_read_and_its_error_is_unknown(
    browser: webdriver.Chrome, csrm_server: Server, traffic: Traffic
) -> None:
    page = Page(browser, csrm_server.url, "#refund")
    page.wait(lambda page: page.text("policy-state") == "Read as text: 4 rules")
    page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))
    page.write_policy("id: a\nrules:\n- name: Only\ntext: x")
    page.wait_verdict("Unknown")
    assert page.text("policy-state").startswith("BadConfig: line ")
    assert page.text("error").startswith("BadConfig")
    assert page.text("compliance") == "–"
    assert page.text("rules") == ""
    assert all(word == "unknown: BadConfig" for word in page.turn_words())
    page.write_policy("1. Never promise money.\n2. Be polite.")
    page.wait(lambda page: page.text("policy-state") == "Read as numbered: 2 rules")
    page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))
    assert page.console() == []


def test_page_edited_copy_of_a_loaded_config_has_the_same_rules(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    """What the page writes as YAML is read back to the same rules, however they are spelt."""
    texts = [
        "yes",
        "- a: b # c",
        "'quoted' \"twice\"",
        "two\n  lines\n",
        " edge ",
        "1.5",
        "\u2028\x85é😀",
    ]
    rules = [{"name": text.strip(), "text": text, "severity": "low"} for text in texts]
    file = tmp_path / "odd.json"
    document = {"version": "1e3", "threshold": 0.25, "description": "a: b", "rules": rules}
    file.write_text(json.dumps(document))
    server = start_server(tmp_path, config=file)
    try:
        page = Page(browser, server.url)
        page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))
        assert page.text("policy-state") == f"Loaded config: {len(rules)} rules"
        digest = csrm.SafetyConfig.load(file).digest()[:8]
        assert f"config odd · version 1e3 · rules {digest}" in page.text("identity")
        browser.find_element(By.ID, "policy").send_keys(Keys.CONTROL, Keys.END)
        browser.find_element(By.ID, "policy").send_keys(Keys.ENTER)
        page.wait(lambda page: page.text("policy-state") == f"Read as yaml: {len(rules)} rules")
        page.wait(lambda page: f"config inline · rules {digest}" in page.text("identity"))
        assert page.text("threshold") == "0.25"
    finally:
        assert server.stop() == 0


def test_page_raised_threshold_is_marked_and_turns_the_verdict(
    browser: webdriver.Chrome, csrm_server: Server, traffic: Traffic
) -> None:
    page = Page(browser, csrm_server.url)
    page.paste(user(traffic.allowed))
    page.wait_verdict("Compliant")
    slider = browser.find_element(By.ID, "raise")
    slider.send_keys(Keys.END)
    page.wait_verdict("Violation")
    assert page.text("threshold") == "1.00"
    slider.send_keys(Keys.HOME)
    page.wait_verdict("Compliant")
    assert page.text("threshold") == "0.50"


def test_page_markup_of_users_is_text_and_does_not_run(
    browser: webdriver.Chrome, csrm_server: Server
) -> None:
    page = Page(browser, csrm_server.url)
    page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))
    rules = [{"name": f"Name {MARKUP}", "text": f"Never say {MARKUP}"}]
    page.write_policy(json.dumps({"rules": rules}))
    page.paste(user(f"Please print {MARKUP}"))
    page.wait(lambda page: page.text("policy-state") == "Read as yaml: 1 rule")
    page.wait(lambda page: MARKUP in page.text("rules"))
    page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))
    name = browser.find_element(By.CSS_SELECTOR, "#rules .rule-name")
    assert name.text == f"Name {MARKUP}"
    assert page.turns()[0].get_property("value") == f"Please print {MARKUP}"
    assert MARKUP.split("'")[0] in browser.find_element(By.ID, "request").get_property(
        "textContent"
    )
    assert browser.execute_script("return window.ran") is None
    assert browser.find_elements(By.CSS_SELECTOR, "main script, main img") == []
    assert page.console() == []


def test_page_no_verdict_is_unknown_and_never_compliant(
    browser: webdriver.Chrome, late_server: Server
) -> None:
    page = Page(browser, late_server.url)
    page.wait_verdict("Unknown")
    assert page.text("error").startswith("DeadlineExceeded")
    assert page.text("compliance") == "–"
    assert "compliant" not in browser.find_element(By.TAG_NAME, "main").text.lower().replace(
        "compliance", ""
    )
    assert page.console() == []


def test_page_empty_turn_is_unknown(browser: webdriver.Chrome, csrm_server: Server) -> None:
    page = Page(browser, csrm_server.url)
    page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))
    page.turns()[-1].send_keys(Keys.CONTROL, Keys.ENTER)
    page.wait_verdict("Unknown")
    assert page.text("error").startswith("EmptyConversation")
    assert browser.switch_to.active_element == page.turns()[-1]
    browser.switch_to.active_element.send_keys("Hello!")
    page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))


def test_page_pasted_nonsense_is_refused_in_place(
    browser: webdriver.Chrome, csrm_server: Server
) -> None:
    page = Page(browser, csrm_server.url)
    page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))
    n_turns = len(page.turns())
    for text, expected in (
        ([{"role": "user", "content": [{"type": "image_url"}]}], "message 1: the content must"),
        ([{"role": "robot", "content": "a"}], "message 1: the role must"),
        ({"conversations": []}, "there is no list"),
    ):
        page.paste(text)
        assert page.text("paste-error").startswith(expected)
        browser.find_element(By.ID, "paste-text").clear()
        browser.find_element(By.ID, "paste-cancel").click()
    assert len(page.turns()) == n_turns


def test_page_late_answers_are_dropped(
    browser: webdriver.Chrome, csrm_server: Server, traffic: Traffic
) -> None:
    """The first answer is held back until the second has been shown."""
    page = Page(browser, csrm_server.url)
    page.paste(user(traffic.violating))
    page.wait_verdict("Violation")
    browser.execute_script(
        """
        const ask = window.fetch;
        window.held = [];
        window.fetch = async (path, given) => {
          const isOld = String(given.body).includes(arguments[0]);
          const response = await ask(path, { ...given, signal: undefined });
          if (isOld) await new Promise((go) => window.held.push(go));
          return response;
        };
        """,
        "OLD",
    )
    turn = page.turns()[0]
    turn.send_keys(" OLD")
    page.wait(lambda page: browser.execute_script("return window.held.length"))
    turn.send_keys(Keys.CONTROL, "a")
    turn.send_keys(traffic.allowed)
    page.wait_verdict("Compliant")
    browser.execute_script("window.held.forEach((go) => go())")
    browser.execute_async_script("setTimeout(arguments[0], 300)")
    assert page.verdict() == "Compliant"
    page.wait(lambda page: page.turn_words()[0].endswith(" compliant"))


def test_page_needs_the_key_and_keeps_it_in_memory(
    browser: webdriver.Chrome,
    tmp_path: Path,
    traffic: Traffic,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CSRM_API_KEYS", f"page={KEY}")
    server = start_server(tmp_path, "--page")
    try:
        page = Page(browser, server.url)
        page.wait_verdict("Unknown")
        assert page.text("error").startswith("Unauthorized")
        browser.find_element(By.ID, "key").send_keys(KEY)
        page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))
        stored = "return [localStorage.length, sessionStorage.length, document.cookie]"
        assert browser.execute_script(stored) == [0, 0, ""]
        assert KEY not in browser.current_url
        assert page.console() == []
        browser.refresh()
        page.wait_verdict("Unknown")
    finally:
        assert server.stop() == 0


def test_page_with_the_keyboard_alone(browser: webdriver.Chrome, csrm_server: Server) -> None:
    """Tab reaches every control, and each shows that it has the focus."""
    page = Page(browser, csrm_server.url)
    page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))
    selector = "button, input, select, textarea, a[href], summary"
    expected = {
        element.id
        for element in browser.find_elements(By.CSS_SELECTOR, selector)
        if element.is_displayed()
    }
    seen = set()
    for _ in range(len(expected) + 10):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        focused = browser.switch_to.active_element
        seen.add(focused.id)
        if focused.tag_name != "body":
            assert focused.value_of_css_property("outline-style") != "none"
    assert expected <= seen


def test_page_fits_a_narrow_window(browser: webdriver.Chrome, csrm_server: Server) -> None:
    page = Page(browser, csrm_server.url)
    page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))
    narrow = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        assert browser.find_element(By.ID, "word").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_page_example_texts_are_policies(browser: webdriver.Chrome, csrm_server: Server) -> None:
    """Each example is a link; its policy can be read and its last turn has a verdict."""
    page = Page(browser, csrm_server.url)
    page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))
    links = browser.find_elements(By.CSS_SELECTOR, "#examples a")
    assert len(links) >= 5
    for link in links:
        link.click()
        page.wait(lambda page: page.text("policy-state").startswith("Read as "))
        page.wait(lambda page: page.verdict() in ("Compliant", "Violation"))
    assert page.console() == []


def test_page_is_in_the_repository_under_its_licence_alone() -> None:
    """No file of somebody else's: nothing is minified, and nothing names another host."""
    for path in (REPOSITORY / "runtime" / "csrm" / "serve" / "page").iterdir():
        text = path.read_text()
        assert len(text.splitlines()) < 500
        assert max(map(len, text.splitlines())) < 400
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
