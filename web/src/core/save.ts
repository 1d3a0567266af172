// Gives files to whoever looks: fetched, so that a refusal is told in words and not kept as a file.

/** Fetch a file. Throws an Error whose message is the server's line. */
export async function fetched(address: string): Promise<{ blob: Blob; name: string | null }> {
  let answer: Response;
  try {
    answer = await fetch(address);
  } catch {
    throw new Error("the server cannot be reached");
  }
  if (!answer.ok) {
    const body = (await answer.json().catch(() => ({}))) as { error?: string };
    throw new Error(body.error ?? `the server answered ${answer.status}`);
  }
  try {
    return { blob: await answer.blob(), name: named(answer.headers.get("content-disposition")) };
  } catch {
    throw new Error("the line broke off before the end of the file");
  }
}

/** Have the browser keep a file. */
export function keep(blob: Blob, name: string): void {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  // Some browsers begin to read it a moment later.
  setTimeout(() => URL.revokeObjectURL(address), 30_000);
}

/** An SVG as a PNG of twice its size, drawn here. Throws where it cannot be drawn. */
export async function toPng(svg: Blob, scale = 2): Promise<Blob> {
  const address = URL.createObjectURL(svg);
  try {
    const image = new Image();
    image.src = address;
    await image.decode().catch(() => {
      throw new Error("this browser cannot draw the SVG; keep that instead");
    });
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth * scale;
    canvas.height = image.naturalHeight * scale;
    const context = canvas.getContext("2d");
    if (!context) throw new Error("this browser gave no canvas; keep the SVG instead");
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    const png = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/png"));
    if (!png) throw new Error("this browser made no PNG; keep the SVG instead");
    return png;
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** The name of a file in a Content-Disposition, the exact one if it is there. */
export function named(disposition: string | null): string | null {
  const exact = /filename\*=UTF-8''([^;]+)/i.exec(disposition ?? "")?.[1];
  try {
    if (exact) return decodeURIComponent(exact);
  } catch {
    // a name that is no UTF-8: the plain one is there, too
  }
  return /filename="([^"]*)"/i.exec(disposition ?? "")?.[1] ?? null;
}
