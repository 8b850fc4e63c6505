"""What a visitor does on the demo page, in a browser of Playwright."""

PATIENCE = 150_000
"""Milliseconds, for a machine with other work to do."""


def arrive(page, address):
    """Open the page and wait for a session; what goes wrong from now on is noted in `page.mistakes`."""
    page.set_default_timeout(PATIENCE)
    page.mistakes = []
    page.on("pageerror", lambda error: page.mistakes.append(str(error)))
    page.on("console", lambda said: said.type == "error" and page.mistakes.append(f"{said.text} {said.location}"))
    page.on("response", lambda got: got.status >= 400 and page.mistakes.append(f"{got.status} {got.url}"))
    page.goto(address)
    page.wait_for_selector("#count[data-kept]", state="attached")


def count(page):
    """Frames dreamed so far."""
    return int(page.inner_text("#count"))


def wait_for_count(page, at_least):
    """Wait until so many frames are dreamed."""
    page.wait_for_function(f"Number(document.querySelector('#count').innerText) >= {at_least}")


def settle(page):
    """Wait until the frame under way, if any, is shown."""
    page.wait_for_selector('.screens[aria-busy="false"]')


def hold(page, key, frames=2):
    """Hold a key of the keyboard for some frames."""
    wanted = count(page) + frames
    page.keyboard.down(key)
    wait_for_count(page, wanted)
    page.keyboard.up(key)
    settle(page)


def open_tab(page, name):
    """Show a tab."""
    page.get_by_role("tab", name=name).click()


def set_number(page, place, value):
    """Type into the number of a slider, until it has taken it: a tab just opened is still built."""
    field, slider = (page.locator(f"{place} input[type={kind}]") for kind in ("number", "range"))
    for _ in range(20):
        field.fill(str(value))
        field.press("Tab")
        page.wait_for_timeout(100)
        if field.input_value() == slider.input_value() == str(value):
            return
    raise AssertionError(f"{place} shows {slider.input_value()}, typed was {value}")


def look_ahead(page, futures, frames):
    """Let the futures of the moment be dreamed, and wait for them."""
    open_tab(page, "Counterfactuals")
    set_number(page, "#futures-k", futures)
    set_number(page, "#futures-frames", frames)
    page.click("#look")
    page.wait_for_selector(f'.futures[data-count="{futures}"]')


def begin_ranking(page, trials, steps):
    """Start a ranking of the policies."""
    open_tab(page, "Policies")
    set_number(page, "#trials", trials)
    set_number(page, "#horizon", steps)
    page.click("#rank")
