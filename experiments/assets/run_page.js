// The page of a run: the numbers of a chart under the pointer, and loading the page again while the
// run is under way, without losing the reader's place.

const shown = (value) => (Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(4)))
  .toLocaleString("en", { maximumSignificantDigits: 15 });

// The place in a sorted list that is nearest to a value.
function nearest(list, value) {
  let [low, high] = [0, list.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle] > value) high = middle; else low = middle;
  }
  return value - list[low] <= list[high] - value ? low : high;
}

function startChart(figure) {
  const { until, curves } = JSON.parse(figure.dataset.chart);
  const [plot, readout] = [figure.querySelector(".plot"), figure.querySelector(".readout")];
  const [here, atRest] = [figure.querySelector(".here"), readout.textContent];
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const pointed = ((event.clientX - box.left) / box.width) * until;
    // The rule snaps to the first curve; the others show their nearest number.
    const [, xs] = curves[0];
    const at = xs[nearest(xs, pointed)];
    const numbers = curves.map(([name, x, y]) => `${name} ${shown(y[nearest(x, at)])}`.trim());
    readout.textContent = `${shown(at)} steps: ${numbers.join(", ")}`;
    here.style.left = `${(100 * at) / until}%`;
    here.hidden = false;
  });
  plot.addEventListener("pointerleave", () => {
    readout.textContent = atRest;
    here.hidden = true;
  });
}

// A page that is opened from a file may have no storage: it then starts at its top again.
function kept(value) {
  try {
    if (value) sessionStorage.setItem("place", JSON.stringify(value));
    return JSON.parse(sessionStorage.getItem("place"));
  } catch {
    return null;
  }
}

function loadAgain() {
  const films = [...document.querySelectorAll("video")];
  // Not while nobody looks, nor while a film plays or text is selected.
  if (document.hidden || films.some((film) => !film.paused) || !getSelection().isCollapsed) {
    setTimeout(loadAgain, 1000);
    return;
  }
  const open = [...document.querySelectorAll("details")].map((element) => element.open);
  kept({ of: location.href, x: scrollX, y: scrollY, open });
  location.reload();
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-chart]").forEach(startChart);
  const place = kept();
  if (place?.of === location.href) {
    document.querySelectorAll("details").forEach((element, i) => { element.open = place.open[i]; });
    scrollTo(place.x, place.y);
  }
  const seconds = Number(document.body.dataset.reload);
  if (seconds) setTimeout(loadAgain, 1000 * seconds);
});
