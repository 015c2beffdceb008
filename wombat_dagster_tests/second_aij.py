"""AstroImageJ's measurement a second time: plain, slow, from DOMAIN sections 4 and 7 alone.

Written without sight of `wombat_dagster.science.photometry`, so that the two can be held against
each other (science/test_parity.py); only the second moments and the profile's FWHM, which DOMAIN
does not define, follow the words of its docstring. Nothing of wombat is imported. It works in
AstroImageJ's own frame: row 0 is the top of the picture, pixel i spans [i, i + 1], places are
X(IJ), Y(IJ); values carry the names of the table's columns. No photutils: a circle meets a pixel by
the integral of the half chord.
"""

import itertools
import math

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

DIGITISATION = 0.083521  # 0.289 squared, ADU^2
PEAK_OVERLAP = 0.01
SKY_SIGMA = 2.0
SKY_STOP_ADU = 1e-4
SKY_PASSES = 100
MOST_MASKED = 0.1


def overlap(left, top, radius):
    """Return the area of the unit pixel [left, left + 1] x [top, top + 1] inside x² + y² <= r².

    Along x the pixel's part of the chord [-h, h], h = sqrt(r² - x²), is bounded below by its edge
    or by -h and above by its edge or by h. Between the places where h meets an edge the bounds do
    not change hands, and each has an integral in closed form.
    """

    def half_chord(x):
        return math.sqrt(max(radius**2 - x**2, 0.0))

    def area_under_half_chord(x):
        return (x * half_chord(x) + radius**2 * math.asin(max(-1.0, min(1.0, x / radius)))) / 2

    right, bottom = left + 1.0, top + 1.0
    start, end = max(left, -radius), min(right, radius)
    if start >= end:
        return 0.0
    breaks = {start, end}
    for edge in (top, bottom):
        if abs(edge) < radius:
            crossing = math.sqrt(radius**2 - edge**2)
            breaks |= {x for x in (-crossing, crossing) if start < x < end}
    places = sorted(breaks)
    area = 0.0
    for a, b in itertools.pairwise(places):
        h = half_chord((a + b) / 2)
        if min(bottom, h) <= max(top, -h):
            continue
        arc = area_under_half_chord(b) - area_under_half_chord(a)
        upper = arc if h <= bottom else bottom * (b - a)
        lower = -arc if -h >= top else top * (b - a)
        area += upper - lower
    return area


def aperture_pixels(x_ij, y_ij, radius):
    """Return {(column, row from the top): overlap} of all pixels the aperture touches."""
    pixels = {}
    for row in range(math.floor(y_ij - radius), math.floor(y_ij + radius) + 1):
        for column in range(math.floor(x_ij - radius), math.floor(x_ij + radius) + 1):
            weight = overlap(column - x_ij, row - y_ij, radius)
            if weight > 0:
                pixels[column, row] = weight
    return pixels


def annulus_values(picture, usable, x_ij, y_ij, inner, outer):
    """Return the values of whole usable pixels whose centres lie at inner <= r <= outer."""
    values = []
    rows, columns = picture.shape
    for row in range(max(0, math.floor(y_ij - outer)), min(rows, math.ceil(y_ij + outer) + 1)):
        for column in range(
            max(0, math.floor(x_ij - outer)), min(columns, math.ceil(x_ij + outer) + 1)
        ):
            r2 = (column + 0.5 - x_ij) ** 2 + (row + 0.5 - y_ij) ** 2
            if inner**2 <= r2 <= outer**2 and usable[row, column]:
                values.append(float(picture[row, column]))
    return np.array(values)


def iterated_sky(values, *, passes=SKY_PASSES):
    """Return the mean and the number of the values kept by iterated rejection beyond 2 sigma."""
    kept = values
    mean = values.mean()
    for _ in range(passes):
        kept = values[np.abs(values - mean) <= SKY_SIGMA * kept.std()]
        before, mean = mean, kept.mean()
        if abs(mean - before) < SKY_STOP_ADU:
            break
    return mean, len(kept)


def source_error(source, sky, n, n_sky, *, gain=1.0, read_noise=0.0, dark=0.0):
    """Return the error in ADU; `gain` e/ADU, `read_noise` e, `dark` e per pixel and exposure."""
    star_e = max(source, 0.0) * gain
    pixel_e = max(sky, 0.0) * gain + dark + read_noise**2 + DIGITISATION * gain**2
    return math.sqrt(star_e + n * (1 + n / n_sky) * pixel_e) / gain


def measure(
    image, x_px, y_px, *, radius, inner, outer, gain=1.0, read_noise=0.0, dark=0.0, masked=None
):
    """Return one star's columns, the aperture placed at the 0-based centre `x_px`, `y_px`.

    `image` as FITS holds it (first row at the bottom), `masked` true where a pixel is not usable.
    Everything NaN if more than a tenth of the aperture is masked.
    """
    height = image.shape[0]
    picture = image[::-1]
    usable = np.ones(image.shape, bool) if masked is None else ~masked[::-1]
    x_fits, y_fits = x_px + 1, y_px + 1
    x_ij, y_ij = x_fits - 0.5, height + 0.5 - y_fits
    weights = aperture_pixels(x_ij, y_ij, radius)
    n = math.pi * radius**2
    total = sum(weight * float(picture[row, column]) for (column, row), weight in weights.items())
    peak = max(float(picture[r, c]) for (c, r), weight in weights.items() if weight > PEAK_OVERLAP)
    sky, n_sky = iterated_sky(annulus_values(picture, usable, x_ij, y_ij, inner, outer))
    source = total - n * sky
    error = source_error(source, sky, n, n_sky, gain=gain, read_noise=read_noise, dark=dark)
    columns = {
        "X(IJ)": x_ij, "Y(IJ)": y_ij, "X(FITS)": x_fits, "Y(FITS)": y_fits,
        "Source-Sky": source, "N_Src_Pixels": n, "Source_Error": error,
        "Source_SNR": source / error, "Peak": peak, "Mean": source / n,
        "Sky/Pixel": sky, "N_Sky_Pixels": n_sky,
    }  # fmt: skip
    lost = sum(weight for (column, row), weight in weights.items() if not usable[row, column])
    if lost > MOST_MASKED * n:
        placed = ("X(IJ)", "Y(IJ)", "X(FITS)", "Y(FITS)")
        return {name: v if name in placed else math.nan for name, v in columns.items()}
    return columns


def sky_place(cards, x_fits, y_fits):
    """Return RA in hours and DEC in degrees by astropy's WCS of the solution's cards."""
    header = fits.Header(list(cards.items()))
    ra, dec = WCS(header, naxis=2).all_pix2world(x_fits, y_fits, 1)
    return {"RA": float(ra) / 15, "DEC": float(dec)}


def relative(roles, source, error, mags=None):
    """Return one row's relative columns from {role: Source-Sky}, {role: Source_Error}.

    `mags` {role: entered magnitude} of comps. A comp is left out of its own sum.
    """
    mags = mags or {}
    comps = [role for role in roles if role.startswith("C")]
    row = {
        "tot_C_cnts": sum(source[c] for c in comps),
        "tot_C_err": math.sqrt(sum(error[c] ** 2 for c in comps)),
    }
    known = [c for c in comps if c in mags]
    for role in roles:
        others = [c for c in comps if c != role]
        sum_s = sum(source[c] for c in others)
        sum_var = sum(error[c] ** 2 for c in others)
        ratio = source[role] / sum_s if others else math.nan
        spread = (
            math.sqrt((error[role] / source[role]) ** 2 + sum_var / sum_s**2)
            if others
            else math.nan
        )
        row[f"rel_flux_{role}"] = ratio
        row[f"rel_flux_err_{role}"] = ratio * spread
        row[f"rel_flux_SNR_{role}"] = ratio / (ratio * spread)
        if role in mags:
            row[f"Source_AMag_{role}"] = mags[role]
        elif known and ratio > 0:
            total_mag = -2.5 * math.log10(sum(10 ** (-0.4 * mags[c]) for c in known))
            row[f"Source_AMag_{role}"] = total_mag - 2.5 * math.log10(ratio)
            row[f"Source_AMag_Err_{role}"] = 2.5 * math.log10(1 + spread)
        else:
            row[f"Source_AMag_{role}"] = row[f"Source_AMag_Err_{role}"] = math.nan
    return row


def saturated(peaks, level):
    """Return the highest peak above the level of any aperture, or 0."""
    above = [peak for peak in peaks if peak > level]
    return max(above, default=0)


# ----------------------------------------------------------------------------------------------
# What DOMAIN does not define: from the words of measure_stars' docstring, read when all the above
# was finished. The code was still not looked at.

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))


def moments(image, x_px, y_px, *, radius, sky):
    """Return the widths, angle and roundness of the counts above `sky` inside the aperture.

    2.3548 sqrt(m_xx), 2.3548 sqrt(m_yy), their mean; the angle from +x towards +y as FITS counts
    rows (upwards). Counts that do not add up to a light, or a moment that is not positive (noise),
    make all five NaN: this the docstring did not say, it was found by comparing.
    """
    x_ij, y_ij = x_px + 0.5, y_px + 0.5  # not flipped here: rows count upwards
    light = [
        (column + 0.5, row + 0.5, weight * (float(image[row, column]) - sky))
        for (column, row), weight in aperture_pixels(x_ij, y_ij, radius).items()
    ]
    total = sum(i for _, _, i in light)
    x_mean = sum(x * i for x, _, i in light) / total
    y_mean = sum(y * i for _, y, i in light) / total
    m_xx = sum((x - x_mean) ** 2 * i for x, _, i in light) / total
    m_yy = sum((y - y_mean) ** 2 * i for _, y, i in light) / total
    m_xy = sum((x - x_mean) * (y - y_mean) * i for x, y, i in light) / total
    if not (total > 0 and m_xx > 0 and m_yy > 0):
        return dict.fromkeys(("X-Width", "Y-Width", "Width", "Angle", "Roundness"), math.nan)
    x_width, y_width = FWHM_PER_SIGMA * math.sqrt(m_xx), FWHM_PER_SIGMA * math.sqrt(m_yy)
    return {
        "X-Width": x_width,
        "Y-Width": y_width,
        "Width": (x_width + y_width) / 2,
        "Angle": math.degrees(math.atan2(2 * m_xy, m_xx - m_yy) / 2) % 360,
        "Roundness": 1 - ((m_xx - m_yy) ** 2 + 4 * m_xy**2) / (m_xx + m_yy) ** 2,
    }


def profile_fwhm(image, x_px, y_px, *, radius, sky):
    """Return the FWHM of the Gaussian the profile follows above a quarter of its peak.

    ln I = a - b r² by least squares with weights I².
    """
    points = [
        ((column - x_px) ** 2 + (row - y_px) ** 2, float(image[row, column]) - sky)
        for (column, row), weight in aperture_pixels(x_px + 0.5, y_px + 0.5, radius).items()
        if weight > PEAK_OVERLAP
    ]
    highest = max(i for _, i in points)
    core = [(r2, i) for r2, i in points if i > highest / 4]
    w = sum(i**2 for _, i in core)
    r2_mean = sum(i**2 * r2 for r2, i in core) / w
    log_mean = sum(i**2 * math.log(i) for _, i in core) / w
    slope = sum(i**2 * (r2 - r2_mean) * (math.log(i) - log_mean) for r2, i in core) / sum(
        i**2 * (r2 - r2_mean) ** 2 for r2, i in core
    )
    return FWHM_PER_SIGMA * math.sqrt(-1 / (2 * slope))
