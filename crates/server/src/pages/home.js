// Fetches the page again every two seconds while somebody looks, and puts the new parts in the place of the old ones.
// Images that were loaded stay: their signed addresses change with every page.
const refresh = async () => {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.redirected || !answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const image of fresh.querySelectorAll("img[data-job]")) {
      const loaded = document.querySelector(`img[data-job="${image.dataset.job}"]`);
      if (loaded) image.replaceWith(loaded);
    }
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    document.body.classList.remove("stale");
  } catch {
    document.body.classList.add("stale");
  }
};
setInterval(refresh, 2000);
document.addEventListener("visibilitychange", refresh);
