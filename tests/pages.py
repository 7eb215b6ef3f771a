"What a page that a command wrote has to be."
import re


def assert_self_contained(page):
    "No script, no address, every picture in the page itself and described; returns their number."
    assert not re.search(r'(?:src|href)="(?!data:image/png;base64,)', page) and '<script' not in page
    assert '://' not in page
    images = re.findall('<img [^>]*>', page)
    assert images and all(re.search('alt="[^"]{10,}"', image) for image in images)
    return len(images)
